//! The accounts behind the login page, userinfo and the Management API.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::claims::{AUTH_ID, IS_GRANTS};
use super::options::User;

/// 2024-01-01T12:00:00Z, when the first account was made; the others follow a minute apart each.
const FIRST_CREATED: u64 = 1_704_110_400;
/// 2024-01-15T10:30:00Z, when all of them were changed last.
const LAST_UPDATED: u64 = 1_705_314_600;
const GIVEN_NAMES: [&str; 12] = [
    "Ada", "Bruno", "Chen", "Dalia", "Emeka", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kofi",
    "Lena",
];
const FAMILY_NAMES: [&str; 7] = [
    "Abel", "Bakker", "Costa", "Diaz", "Eriksen", "Fischer", "García",
];

/// All accounts, in the order in which they were made.
pub(super) struct Directory {
    people: Vec<Person>,
}

/// An account.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) email: String,
    email_verified: bool,
    pub(super) name: String,
    given_name: String,
    family_name: String,
    picture: String,
    created_at: SystemTime,
    updated_at: SystemTime,
    /// The Bonterra claims come from here.
    app_metadata: Map<String, Value>,
    user_metadata: Map<String, Value>,
    /// `None` for those who cannot log in.
    password: Option<String>,
}

/// What is to be different about an account.
#[derive(Default)]
pub(super) struct Change {
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) given_name: Option<String>,
    pub(super) family_name: Option<String>,
    pub(super) app_metadata: Option<Map<String, Value>>,
    pub(super) user_metadata: Option<Map<String, Value>>,
}

// === impl Directory ===

impl Directory {
    /// The accounts of the login page, and as many others as make `size` of all.
    pub(super) fn new(users: &[User], size: usize) -> Self {
        let known = users.iter().enumerate();
        let known = known.map(|(number, user)| Person::of(user, number));
        let others = (users.len()..size).map(Person::made_up);
        Self {
            people: known.chain(others).collect(),
        }
    }

    pub(super) fn people(&self) -> &[Person] {
        &self.people
    }

    pub(super) fn get(&self, id: &str) -> Option<&Person> {
        self.people.iter().find(|person| person.id == id)
    }

    /// The id of the account with this name and password.
    pub(super) fn log_in(&self, email: &str, password: &str) -> Option<String> {
        let found = self.people.iter().find(|person| {
            person.email.eq_ignore_ascii_case(email) && person.password.as_deref() == Some(password)
        });
        found.map(|person| person.id.clone())
    }

    /// Changes an account; returns it as it is afterwards.
    pub(super) fn change(&mut self, id: &str, change: Change) -> Option<&Person> {
        let person = self.people.iter_mut().find(|person| person.id == id)?;
        person.apply(change);
        Some(person)
    }
}

// === impl Person ===

impl Person {
    fn of(user: &User, number: usize) -> Self {
        let mut app_metadata = Map::new();
        app_metadata.insert("bonterra_auth_id".to_owned(), json!(user.auth_id));
        app_metadata.insert("is_bonterra_grants".to_owned(), json!(user.is_grants));
        Self {
            id: user.id.clone(),
            email: user.email.clone(),
            email_verified: true,
            name: format!("{} {}", user.given_name, user.family_name),
            given_name: user.given_name.clone(),
            family_name: user.family_name.clone(),
            picture: format!("https://pictures.example.com/{number}.png"),
            created_at: UNIX_EPOCH + Duration::from_secs(FIRST_CREATED + 60 * number as u64),
            updated_at: UNIX_EPOCH + Duration::from_secs(LAST_UPDATED),
            app_metadata,
            user_metadata: Map::new(),
            password: Some(user.password.clone()),
        }
    }

    /// The same person for a number whenever it is asked for.
    fn made_up(number: usize) -> Self {
        let pick = |names: &[&str]| {
            names
                .get(number % names.len())
                .copied()
                .unwrap_or_default()
                .to_owned()
        };
        let user = User {
            id: format!("auth0|{:024x}", 0x60d5_ec49_0000_0000_u64 + number as u64),
            email: format!("person{number}@example.com"),
            password: String::new(),
            given_name: pick(&GIVEN_NAMES),
            family_name: pick(&FAMILY_NAMES),
            auth_id: Uuid::from_u128(0x0b0e_7e22_0000_4000_8000_0000_0000_0000 + number as u128)
                .to_string(),
            is_grants: number.is_multiple_of(2),
        };
        let mut person = Self::of(&user, number);
        person.password = None;
        person
            .user_metadata
            .insert("newsletter".to_owned(), json!(number.is_multiple_of(3)));
        person
    }

    /// Metadata is merged one level deep, and `null` takes a member away; an address that changes is unproven again.
    fn apply(&mut self, change: Change) {
        if let Some(email) = change.email
            && email != self.email
        {
            self.email = email;
            self.email_verified = false;
        }
        let texts = [
            (&mut self.name, change.name),
            (&mut self.given_name, change.given_name),
            (&mut self.family_name, change.family_name),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                *field = text;
            }
        }
        let objects = [
            (&mut self.app_metadata, change.app_metadata),
            (&mut self.user_metadata, change.user_metadata),
        ];
        for (field, members) in objects {
            for (name, value) in members.into_iter().flatten() {
                match value {
                    Value::Null => drop(field.shift_remove(&name)),
                    value => drop(field.insert(name, value)),
                }
            }
        }
        self.updated_at = SystemTime::now();
    }

    /// As the Management API tells it.
    pub(super) fn profile(&self) -> Value {
        json!({
            "user_id": self.id,
            "email": self.email,
            "email_verified": self.email_verified,
            "name": self.name,
            "given_name": self.given_name,
            "family_name": self.family_name,
            "picture": self.picture,
            "created_at": timestamp(self.created_at),
            "updated_at": timestamp(self.updated_at),
            "app_metadata": self.app_metadata,
            "user_metadata": self.user_metadata,
        })
    }

    /// As userinfo tells it (OpenID Connect Core §5.1).
    pub(super) fn userinfo(&self) -> Value {
        json!({
            "sub": self.id,
            "email": self.email,
            "email_verified": self.email_verified,
            "name": self.name,
            "given_name": self.given_name,
            "family_name": self.family_name,
            "picture": self.picture,
            "updated_at": timestamp(self.updated_at),
            AUTH_ID: self.auth_id(),
            IS_GRANTS: self.is_grants(),
        })
    }

    pub(super) fn auth_id(&self) -> Value {
        self.app_metadata
            .get("bonterra_auth_id")
            .cloned()
            .unwrap_or_default()
    }

    pub(super) fn is_grants(&self) -> Value {
        self.app_metadata
            .get("is_bonterra_grants")
            .cloned()
            .unwrap_or_default()
    }
}

/// RFC 3339 with milliseconds.
pub(super) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
