//! A token that parses can be read in one way only: it has one spelling, and no member twice.

use super::Outcome;
use super::json::Json;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bonterra_gateway::authn::token::UnverifiedToken;

/// Takes every spelling that any decoder might take.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Checks a bearer token.
pub fn check(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    let Ok(token) = UnverifiedToken::parse(text) else {
        return Outcome::Refused;
    };
    let segments: Vec<Vec<u8>> = text.split('.').map(decoded).collect();
    let spelt: Vec<String> = segments
        .iter()
        .map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
        .collect();
    assert_eq!(spelt.join("."), text, "the same token, spelt otherwise");
    let [header, payload, signature] = segments.as_slice() else {
        panic!("{} segments", segments.len());
    };
    assert!(!signature.is_empty(), "not signed");
    let (header, payload) = (object(header), object(payload));
    let text_of = |object: &Json, name| object.get(name).and_then(Json::text).map(str::to_owned);
    assert!(text_of(&header, "alg").is_some(), "alg is no string");
    assert_eq!(text_of(&header, "kid").as_deref(), token.key_id());
    assert_eq!(text_of(&payload, "iss").as_deref(), Some(token.issuer()));
    Outcome::Accepted
}

fn decoded(segment: &str) -> Vec<u8> {
    LENIENT.decode(segment).expect("base64url")
}

fn object(bytes: &[u8]) -> Json {
    let json = Json::read(bytes).expect("JSON to another reader too");
    assert!(json.members().is_some(), "no object");
    assert!(!json.repeats_a_member(), "a member twice");
    json
}
