//! One case: a good token, one to three mutators, and what came of it. The same seed and number
//! make the same case again, keys and signatures aside.

use super::lab::{How, Lab, message};
use super::mutate::{Apply, Dice, Mutator};
use super::oracle::Oracle;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fastrand::Rng;
use serde_json::Value;

/// A mutated token.
pub struct Case {
    pub number: u64,
    /// Names of the mutators, in the order of application.
    pub mutators: Vec<&'static str>,
    /// How the signature came about.
    pub signed: &'static str,
    /// What follows `Bearer ` in the request.
    pub credential: Vec<u8>,
    /// Header and claims as they were before the finished token was touched.
    header: Vec<u8>,
    claims: Vec<u8>,
    key: usize,
}

impl Case {
    /// Makes the case of this number; `unsendable` counts drafts that no header line can carry, in
    /// whose place another is drawn.
    pub fn new(
        lab: &Lab,
        mutators: &[Mutator],
        (seed, number): (u64, u64),
        now: u64,
        unsendable: &mut u64,
    ) -> Self {
        let rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut dice = Dice {
            rng,
            now,
            lab,
            key: 0,
        };
        loop {
            let case = Self::draft(&mut dice, mutators, number);
            if !case.credential.iter().any(|byte| b"\r\n\0".contains(byte)) {
                return case;
            }
            *unsendable += 1;
        }
    }

    fn draft(dice: &mut Dice<'_>, mutators: &[Mutator], number: u64) -> Self {
        // RSA is dear to sign with, so a quarter of the cases has to do.
        dice.key = if dice.per_cent(25) {
            dice.rng.usize(..2)
        } else {
            dice.rng.usize(2..dice.lab.keys.len())
        };
        let drawn = draw(dice, mutators);
        let at = dice.rng.usize(..);
        let good = dice.lab.pooled(dice.key, at);
        let (mut header, mut claims) = (good.header.clone(), good.claims.clone());
        for mutator in &drawn {
            match mutator.apply {
                Apply::Header(apply) => apply(&mut header, dice),
                Apply::Claims(apply) => apply(&mut claims, dice),
                _ => {}
            }
        }
        let (mut header, mut claims) = (header.render().into_bytes(), claims.render().into_bytes());
        let mut how = None;
        for mutator in &drawn {
            match mutator.apply {
                Apply::Json(apply) if dice.per_cent(40) => apply(&mut header, dice),
                Apply::Json(apply) => apply(&mut claims, dice),
                Apply::Signing(other) => how = Some(other),
                _ => {}
            }
        }
        let changed = drawn.iter().any(|mutator| mutator.apply.stage() < 3);
        let (signed, signature) = sign(dice, &message(&header, &claims), how, changed)
            .unwrap_or_else(|| ("before it was changed", good.signature.clone()));
        let credential = finish(dice, &drawn, [header.clone(), claims.clone(), signature]);
        Self {
            number,
            mutators: drawn.iter().map(|mutator| mutator.name).collect(),
            signed,
            credential,
            header,
            claims,
            key: dice.key,
        }
    }

    /// The token that HTTP makes of the credential: RFC 9110 §11.4 allows more than one space before
    /// it, and white space at the end is no part of a field value (§5.5).
    pub fn token(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.credential).ok()?;
        Some(text.trim_end_matches([' ', '\t']).trim_start_matches(' '))
    }

    /// Whether the oracle's only objection is to members that RFC 7515 §4 and RFC 7519 §4 tell a
    /// verifier to ignore when it does not use them, and that it wants to be strings all the same.
    /// It has to accept the token signed anew without them; the signature that the gateway saw has to
    /// be one of a published key.
    pub fn differs_in_ignored_members_only(&self, lab: &Lab, oracle: &Oracle) -> bool {
        const HEADER: [&str; 8] = ["cty", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "salt"];
        let (Some(header), Some(claims)) = (
            without(&self.header, &HEADER),
            without(&self.claims, &["nonce"]),
        ) else {
            return false;
        };
        if header.as_bytes() == self.header && claims.as_bytes() == self.claims {
            return false;
        }
        let message = message(header.as_bytes(), claims.as_bytes());
        let signature = lab.keys[self.key].sign(How::Properly, message.as_bytes());
        let twin = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        let genuine = self.token().is_some_and(|token| {
            let genuine = |(message, signature): (&str, &str)| {
                let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
                let mut keys = lab.keys.iter();
                keys.any(|key| key.verifies(message.as_bytes(), &signature))
            };
            token.rsplit_once('.').is_some_and(genuine)
        });
        genuine && oracle.verify(&twin).is_ok()
    }

    /// For a failure: everything but the signature.
    pub fn describe(&self, seed: u64) -> String {
        format!(
            "case {} of seed {seed}: {}; signed {}\n  header {}\n  claims {}\n  \
             again: DIFFERENTIAL_SEED={seed} DIFFERENTIAL_CASE={}",
            self.number,
            self.mutators.join(", "),
            self.signed,
            beginning(&self.header),
            beginning(&self.claims),
            self.number,
        )
    }
}

fn beginning(json: &[u8]) -> String {
    String::from_utf8_lossy(json).chars().take(700).collect()
}

/// One to three mutators, more often of what a token says than of how it is written: a token that is
/// not even well-formed tells little.
fn draw<'m>(dice: &mut Dice<'_>, mutators: &'m [Mutator]) -> Vec<&'m Mutator> {
    let meaning = mutators.partition_point(|mutator| mutator.apply.stage() < 2);
    let (meaning, form) = mutators.split_at(meaning);
    let count = [1, 1, 1, 1, 1, 2, 2, 2, 3, 3][dice.rng.usize(..10)];
    let mut drawn: Vec<&Mutator> = Vec::new();
    while drawn.len() < count {
        let list = if dice.per_cent(60) { meaning } else { form };
        if let Some(mutator) = dice.rng.choice(list)
            && drawn.iter().all(|other| other.name != mutator.name)
        {
            drawn.push(mutator);
        }
    }
    drawn.sort_by_key(|mutator| mutator.apply.stage());
    drawn
}

/// Signs what has been changed, or does not; `None` leaves the signature from before.
fn sign(
    dice: &mut Dice<'_>,
    message: &str,
    how: Option<How>,
    changed: bool,
) -> Option<(&'static str, Vec<u8>)> {
    let key = &dice.lab.keys[dice.key];
    if let Some(how) = how {
        return Some(("in another way", key.sign(how, message.as_bytes())));
    }
    if !changed {
        return None;
    }
    match dice.rng.u32(..100) {
        0..60 => Some(("properly", key.sign(How::Properly, message.as_bytes()))),
        60..75 => {
            let stranger = dice.lab.stranger(dice.key);
            let signature = stranger.sign(How::Properly, message.as_bytes());
            Some(("by a stranger", signature))
        }
        _ => None,
    }
}

/// Puts the token together and applies what works on finished tokens.
fn finish(dice: &mut Dice<'_>, drawn: &[&Mutator], mut segments: [Vec<u8>; 3]) -> Vec<u8> {
    for mutator in drawn {
        match mutator.apply {
            Apply::Signature(apply) => apply(&mut segments[2], dice),
            Apply::Segment(apply) => {
                let at = dice.rng.usize(..3);
                apply(&mut segments[at], dice);
            }
            _ => {}
        }
    }
    let mut token = segments
        .map(|segment| URL_SAFE_NO_PAD.encode(segment))
        .join(".")
        .into_bytes();
    for mutator in drawn {
        if let Apply::Text(apply) = mutator.apply {
            apply(&mut token, dice);
        }
    }
    token
}

/// An object without these members; as it was if it has none of them.
fn without(json: &[u8], names: &[&str]) -> Option<String> {
    let mut value: Value = serde_json::from_slice(json).ok()?;
    let object = value.as_object_mut()?;
    let before = object.len();
    object.retain(|name, _| !names.contains(&name.as_str()));
    if object.len() == before {
        return String::from_utf8(json.to_vec()).ok();
    }
    Some(value.to_string())
}
