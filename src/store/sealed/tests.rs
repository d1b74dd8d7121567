//! What is sealed, what opens, and what of two writers one gets.

use super::key::{BadKey, Sealed, SealingKey};
use super::*;

const NOW: UnixSeconds = 1_000_000;
const SECRET: &[u8] = b"CANARY-TOKEN";

fn life(seconds: UnixSeconds) -> Life {
    Life { now: NOW, seconds }
}

fn store() -> SealedStore {
    SealedStore::in_memory(SealingKey::random().unwrap())
}

#[test]
fn keys_are_read_strictly() {
    let good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    assert!(SealingKey::read(good).is_ok());
    for (text, expected) in [
        ("", BadKey::Length(0)),
        ("AAECAwQFBgcICQoLDA0ODw==", BadKey::Length(16)),
        (&good[..43], BadKey::NotBase64),
        (
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=",
            BadKey::NotBase64,
        ),
        (
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX-_kaGxwdHh8=",
            BadKey::NotBase64,
        ),
        (
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            BadKey::NotRandom,
        ),
    ] {
        assert_eq!(SealingKey::read(text).unwrap_err(), expected, "{text}");
    }
    let key = SealingKey::read(good).unwrap();
    assert_eq!(format!("{key:?}"), "SealingKey(withheld)");
    assert!(key.is(&SealingKey::read(good).unwrap()));
    assert!(!key.is(&key.derive(&[b"x"])));
    assert!(!key.derive(&[b"ab", b"c"]).is(&key.derive(&[b"a", b"bc"])));
}

#[test]
fn what_is_sealed_opens_in_its_place_with_its_key_alone() {
    let [key, other] = [(); 2].map(|()| SealingKey::random().unwrap());
    let [here, there] = ["a", "b"].map(|name| RecordId::of("kind", name.as_bytes()));
    let sealed = key.seal(here, SECRET).unwrap();
    let again = key.seal(here, SECRET).unwrap();
    assert_ne!(sealed.bytes(), again.bytes(), "a nonce of its own");
    assert!(
        !sealed
            .bytes()
            .windows(SECRET.len())
            .any(|part| part == SECRET)
    );
    assert_eq!(key.open(here, &sealed).unwrap().content, SECRET);
    assert!(key.open(there, &sealed).is_none());
    assert!(other.open(here, &sealed).is_none());
    for at in 0..sealed.bytes().len() {
        let mut bent = sealed.bytes().to_vec();
        bent[at] ^= 1;
        let bent = Sealed::of(bent).unwrap();
        assert!(key.open(here, &bent).is_none(), "byte {at}");
        let cut = sealed.bytes()[..at].to_vec();
        assert!(Sealed::of(cut).is_none_or(|cut| key.open(here, &cut).is_none()));
    }
}

#[test]
fn names_tell_nothing_and_do_not_meet() {
    let id = RecordId::of("family", b"name");
    assert!(id.place().starts_with(PREFIX) && !id.place().contains("name"));
    assert_ne!(id, RecordId::of("familyn", b"ame"));
    assert_ne!(id, RecordId::of("answer", b"name"));
}

#[tokio::test]
async fn one_of_two_writers_replaces_a_record() {
    let (store, id) = (store(), RecordId::of("k", b"1"));
    assert!(store.get(id, NOW).await.unwrap().is_none());
    store.put(id, b"one", life(10), 5).await.unwrap();
    let seen = store.get(id, NOW).await.unwrap().unwrap();
    assert_eq!(seen.content, b"one");
    let first = store.replace(id, seen.version, b"two", life(10)).await;
    let second = store.replace(id, seen.version, b"three", life(10)).await;
    assert!(first.unwrap().is_some() && second.unwrap().is_none());
    let now = store.get(id, NOW).await.unwrap().unwrap();
    assert_eq!(now.content, b"two");
    assert!(first.unwrap().unwrap() == now.version);
    assert!(store.remove(id).await.unwrap());
    assert!(!store.remove(id).await.unwrap());
    let late = store.replace(id, now.version, b"four", life(10)).await;
    assert!(late.unwrap().is_none(), "what is gone stays gone");
    assert!(store.get(id, NOW).await.unwrap().is_none());
}

#[tokio::test]
async fn records_end_and_none_is_dropped_to_make_room() {
    let store = store();
    let id = |n: u8| RecordId::of("k", &[n]);
    store.put(id(1), SECRET, life(10), 2).await.unwrap();
    store.put(id(2), SECRET, life(20), 2).await.unwrap();
    let full = Err(SealedError::Full);
    assert_eq!(store.put(id(3), SECRET, life(10), 2).await, full);
    assert_eq!(store.ready(2, NOW), full);
    assert_eq!(store.put(id(2), b"new", life(20), 2).await, Ok(()));
    assert!(store.get(id(1), NOW + 9).await.unwrap().is_some());
    assert!(store.get(id(1), NOW + 10).await.unwrap().is_none());
    assert_eq!(store.ready(2, NOW + 10), Ok(()));
    let later = Life {
        now: NOW + 10,
        seconds: 10,
    };
    assert_eq!(store.put(id(3), SECRET, later, 2).await, Ok(()));
    assert!(store.get(id(2), NOW + 10).await.unwrap().is_some());
}

#[test]
fn no_record_is_kept_for_longer_than_redis_can_count() {
    for (seconds, kept) in [(i64::MIN, 1), (0, 1), (60, 60), (i64::MAX, LONGEST)] {
        assert_eq!(life(seconds).milliseconds(), kept * 1000);
        assert_eq!(life(seconds).end(), NOW + kept);
    }
}
