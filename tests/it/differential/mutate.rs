//! The mutators: small, named ways to spoil a token, or to bring it close to being spoilt.

#![expect(
    clippy::ptr_arg,
    reason = "all mutators of a stage have one signature, whether they change the length or not"
)]

use super::lab::{How, Key, Lab, Members, quoted};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bonterra_gateway::demo::auth::AUDIENCE;
use fastrand::Rng;

const LEEWAY: u64 = 30;

/// Raw JSON of every kind, for members that have to be of one kind.
const ANY: [&str; 16] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1.5",
    "1e3",
    "\"\"",
    "\"x\"",
    "\"1\"",
    "[]",
    "[\"x\"]",
    "[1]",
    "[null]",
    "{}",
    "{\"x\":1}",
];

/// A named change.
pub struct Mutator {
    pub name: &'static str,
    pub apply: Apply,
}

/// What a mutator works on, in the order in which a token is made.
#[derive(Clone, Copy)]
pub enum Apply {
    Header(fn(&mut Members, &mut Dice<'_>)),
    Claims(fn(&mut Members, &mut Dice<'_>)),
    /// The JSON text of header or claims, before it is signed.
    Json(fn(&mut Vec<u8>, &mut Dice<'_>)),
    /// How it is signed.
    Signing(How),
    Signature(fn(&mut Vec<u8>, &mut Dice<'_>)),
    /// What a segment of the finished token decodes to.
    Segment(fn(&mut Vec<u8>, &mut Dice<'_>)),
    /// The finished token.
    Text(fn(&mut Vec<u8>, &mut Dice<'_>)),
}

/// Chance, and what a mutator needs to know.
pub struct Dice<'l> {
    pub rng: Rng,
    pub now: u64,
    pub lab: &'l Lab,
    /// Index of the key that the token is for.
    pub key: usize,
}

// === impl Dice ===

impl Dice<'_> {
    fn pick<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.rng.usize(..list.len())]
    }

    /// An index into something of this length; 0 if it is empty.
    fn at(&mut self, length: usize) -> usize {
        self.rng.usize(..length.max(1))
    }

    pub fn per_cent(&mut self, chance: u32) -> bool {
        self.rng.u32(..100) < chance
    }

    fn own(&self) -> &Key {
        &self.lab.keys[self.key]
    }

    fn other(&mut self) -> &Key {
        let at = self.at(self.lab.keys.len());
        &self.lab.keys[at]
    }
}

// === impl Apply ===

impl Apply {
    /// Mutators are applied in the order of their stages, whatever the order they were drawn in.
    pub fn stage(self) -> usize {
        match self {
            Self::Header(_) => 0,
            Self::Claims(_) => 1,
            Self::Json(_) => 2,
            Self::Signing(_) => 3,
            Self::Signature(_) => 4,
            Self::Segment(_) => 5,
            Self::Text(_) => 6,
        }
    }
}

/// All of them, in the order of their stages.
pub fn all() -> Vec<Mutator> {
    use Apply::{Claims, Header, Json, Segment, Signature, Signing, Text};
    let list: Vec<(&'static str, Apply)> = vec![
        ("alg value", Header(alg)),
        ("alg absent", Header(|header, _| header.remove("alg"))),
        ("typ value", Header(typ)),
        ("typ absent", Header(|header, _| header.remove("typ"))),
        ("kid value", Header(kid)),
        ("kid absent", Header(|header, _| header.remove("kid"))),
        ("crit", Header(crit)),
        ("b64", Header(b64)),
        ("key in the header", Header(embedded)),
        ("cty", Header(cty)),
        ("zip, enc, salt", Header(foreign)),
        ("header member unknown", Header(unknown)),
        ("header member retyped", Header(retyped)),
        ("header member repeated", Header(repeated)),
        ("header reordered", Header(reordered)),
        ("header escaped", Header(escaped)),
        ("header name in another case", Header(recased)),
        ("exp edge", Claims(|claims, dice| edge(claims, "exp", dice))),
        ("nbf edge", Claims(|claims, dice| edge(claims, "nbf", dice))),
        ("iat edge", Claims(|claims, dice| edge(claims, "iat", dice))),
        (
            "exp value",
            Claims(|claims, dice| time(claims, "exp", dice)),
        ),
        (
            "nbf value",
            Claims(|claims, dice| time(claims, "nbf", dice)),
        ),
        (
            "iat value",
            Claims(|claims, dice| time(claims, "iat", dice)),
        ),
        ("exp absent", Claims(|claims, _| claims.remove("exp"))),
        ("iat absent", Claims(|claims, _| claims.remove("iat"))),
        ("aud value", Claims(aud)),
        ("aud absent", Claims(|claims, _| claims.remove("aud"))),
        ("iss value", Claims(iss)),
        ("iss absent", Claims(|claims, _| claims.remove("iss"))),
        ("sub value", Claims(sub)),
        ("jti value", Claims(|claims, dice| any(claims, "jti", dice))),
        (
            "nonce value",
            Claims(|claims, dice| any(claims, "nonce", dice)),
        ),
        ("cnf", Claims(cnf)),
        ("scope value", Claims(scope)),
        ("claim removed", Claims(removed)),
        ("claim retyped", Claims(retyped)),
        ("claim unknown", Claims(unknown)),
        ("claim repeated", Claims(repeated)),
        ("claims reordered", Claims(reordered)),
        ("claim escaped", Claims(escaped)),
        ("claim name in another case", Claims(recased)),
        ("claim normalised", Claims(normalised)),
        ("claim nested", Claims(nested)),
        ("claim long", Claims(long)),
        ("JSON around", Json(around)),
        ("JSON punctuation", Json(punctuation)),
        ("JSON number", Json(number)),
        ("JSON bad text", Json(bad_text)),
        ("JSON deep", Json(deep)),
        (
            "JSON cut",
            Json(|json, dice| json.truncate(dice.at(json.len()))),
        ),
        ("JSON white space", Json(white_space)),
        ("JSON in UTF-16", Json(utf16)),
        ("signed as PSS", Signing(How::Pss)),
        ("signed over another hash", Signing(How::OtherHash)),
        ("signed as DER", Signing(How::Der)),
        (
            "signed with the public key",
            Signing(How::PublicKeyAsSecret),
        ),
        ("signature of another token", Signature(borrowed)),
        (
            "signature cut",
            Signature(|bytes, dice| bytes.truncate(dice.at(bytes.len()))),
        ),
        ("signature with zeros", Signature(zeros)),
        ("signature halves swapped", Signature(halves)),
        ("signature complement", Signature(complement)),
        ("signature blank", Signature(blank)),
        ("signature in DER", Signature(as_der)),
        ("byte flipped", Segment(flip)),
        ("byte deleted", Segment(delete)),
        ("byte inserted", Segment(insert)),
        ("bytes swapped", Segment(swap)),
        ("character flipped", Text(flip)),
        ("character deleted", Text(delete)),
        ("character inserted", Text(insert)),
        ("characters swapped", Text(swap)),
        ("segments rearranged", Text(segments)),
        ("segments joined", Text(joined)),
        ("dots", Text(dots)),
        ("padding", Text(padding)),
        ("spaces", Text(spaces)),
        ("other alphabet", Text(alphabet)),
        ("spare bits", Text(spare_bits)),
        ("other case", Text(other_case)),
        ("wrapped", Text(wrapped)),
        ("too long", Text(too_long)),
    ];
    list.into_iter()
        .map(|(name, apply)| Mutator { name, apply })
        .collect()
}

// === header ===

fn alg(header: &mut Members, dice: &mut Dice<'_>) {
    let raw = dice.pick(&[
        "\"none\"",
        "\"None\"",
        "\"HS256\"",
        "\"RS256\"",
        "\"rs256\"",
        "\"RS256 \"",
        "\"RS512\"",
        "\"PS256\"",
        "\"ES256\"",
        "\"ES384\"",
        "\"ES256K\"",
        "\"EdDSA\"",
        "\"Ed25519\"",
        "\"\"",
        "null",
        "256",
        "[\"RS256\"]",
        "{}",
        "\"RS\\u0032\\u0035\\u0036\"",
    ]);
    header.set("alg", raw);
}

fn typ(header: &mut Members, dice: &mut Dice<'_>) {
    let raw = dice.pick(&[
        "\"jwt\"",
        "\"at+jwt\"",
        "\"AT+JWT\"",
        "\"application/at+jwt\"",
        "\"application/jwt\"",
        "\"APPLICATION/JWT\"",
        "\"Application/At+Jwt\"",
        "\"application/application/jwt\"",
        "\"app\\u006cication\\/jwt\"",
        "\"appl\u{131}cation/jwt\"",
        "\"dpop+jwt\"",
        "\"id+jwt\"",
        "\"logout+jwt\"",
        "\"ID\"",
        "\"JOSE\"",
        "\"\"",
        "\" JWT\"",
        "\"JWT;x=1\"",
        "\"text/jwt\"",
        "null",
        "5",
        "[\"JWT\"]",
        "{}",
    ]);
    header.set("typ", raw);
}

fn kid(header: &mut Members, dice: &mut Dice<'_>) {
    let own = dice.own().kid;
    let raw = match dice.rng.u32(..10) {
        0..3 => quoted(dice.other().kid),
        3 => quoted("stranger"),
        4 => quoted(&own.to_uppercase()),
        5 => quoted(&format!("{own}\0")),
        6 => quoted(&format!(" {own}")),
        7 => quoted(&own.replace('-', "\u{2010}")),
        8 => quoted(&"k".repeat(dice.rng.usize(1..2000))),
        _ => dice
            .pick(&[
                "null",
                "1",
                "[\"shared\"]",
                "{}",
                "\"\"",
                "\"../../shared\"",
                "\"' OR 1=1 --\"",
                "\"sh\\u0061red\"",
                "true",
            ])
            .to_owned(),
    };
    header.set("kid", raw);
}

fn crit(header: &mut Members, dice: &mut Dice<'_>) {
    let raw = dice.pick(&[
        "[]",
        "null",
        "[\"exp\"]",
        "[\"b64\"]",
        "[\"x\"]",
        "[\"\"]",
        "[5]",
        "\"exp\"",
        "{}",
        "[\"alg\",\"alg\"]",
        "[[]]",
    ]);
    header.set("crit", raw);
}

fn b64(header: &mut Members, dice: &mut Dice<'_>) {
    header.set(
        "b64",
        dice.pick(&["false", "true", "null", "\"false\"", "0"]),
    );
    if dice.per_cent(30) {
        header.set("crit", "[\"b64\"]");
    }
}

fn embedded(header: &mut Members, dice: &mut Dice<'_>) {
    let name = dice.pick(&["jwk", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"]);
    let raw = match dice.rng.u32(..8) {
        0..2 => dice.lab.stranger(dice.key).jwk().to_string(),
        2 => dice.own().jwk().to_string(),
        3 => "\"http://127.0.0.1:9/keys\"".to_owned(),
        4 => "[\"MIIB\"]".to_owned(),
        5 => "\"MIIB\"".to_owned(),
        _ => dice.pick(&ANY).to_owned(),
    };
    header.set(name, raw);
}

fn cty(header: &mut Members, dice: &mut Dice<'_>) {
    let raw = dice.pick(&["\"JWT\"", "\"application/json\"", "\"\"", "null", "5", "[]"]);
    header.set("cty", raw);
}

fn foreign(header: &mut Members, dice: &mut Dice<'_>) {
    let name = dice.pick(&[
        "zip", "enc", "epk", "iv", "tag", "p2c", "salt", "nonce", "ppt",
    ]);
    let raw = dice.pick(&[
        "\"DEF\"",
        "\"A256GCM\"",
        "{}",
        "\"AAAA\"",
        "\"A\"",
        "1000000000",
        "null",
    ]);
    header.set(name, raw);
}

// === claims ===

/// At least five seconds from where the verdict changes, because both verifiers look at the clock
/// for themselves.
fn edge(claims: &mut Members, name: &str, dice: &mut Dice<'_>) {
    let off = dice.rng.u64(6..20);
    let (now, leeway) = (dice.now, LEEWAY);
    let at = match dice.rng.u32(..8) {
        0 | 1 => now - leeway - off,
        2 => now - leeway + off,
        3 => now,
        4 => now + leeway - off,
        5 | 6 => now + leeway + off,
        _ => now + 3600,
    };
    claims.set(name, at.to_string());
}

fn time(claims: &mut Members, name: &str, dice: &mut Dice<'_>) {
    let later = dice.now + 3600;
    let raw = match dice.rng.u32(..16) {
        0 => format!("{later}.0"),
        1 => format!("{later}.9"),
        2 => format!("\"{later}\""),
        3 => format!("{later}e0"),
        4 => format!("{}e-1", later * 10),
        5 => format!("0{later}"),
        6 => format!("+{later}"),
        7 => format!("-{later}"),
        8 => format!("[{later}]"),
        9 => format!("{later}000"),
        10 => dice.pick(&ANY).to_owned(),
        _ => dice
            .pick(&[
                "0",
                "-0",
                "-1",
                "1",
                "2147483647",
                "2147483648",
                "4294967295",
                "4294967296",
                "4294967297",
                "9007199254740991",
                "9007199254740993",
                "9223372036854775807",
                "9223372036854775808",
                "18446744073709551615",
                "18446744073709551616",
                "-9223372036854775808",
                "1e10",
                "1e18",
                "1e19",
                "1e400",
                "1E+10",
                "NaN",
                "Infinity",
                "0x7fffffff",
                "\"2100-01-01T00:00:00Z\"",
            ])
            .to_owned(),
    };
    claims.set(name, raw);
}

fn aud(claims: &mut Members, dice: &mut Dice<'_>) {
    let good = quoted(AUDIENCE);
    let raw = match dice.rng.u32(..20) {
        0 => format!("[{good}]"),
        1 => format!("[\"urn:other\",{good},{good}]"),
        2 => format!("[{good},5]"),
        3 => format!("[{good},null]"),
        4 => format!("[[{good}]]"),
        5 => format!("{{\"0\":{good}}}"),
        6 => quoted(&format!("{AUDIENCE}/")),
        7 => quoted(&AUDIENCE.to_uppercase()),
        8 => quoted(&format!("{AUDIENCE} urn:other")),
        9 => quoted(&format!("{AUDIENCE},urn:other")),
        10 => quoted(&AUDIENCE[..AUDIENCE.len() - 1]),
        11 => quoted(&format!("{AUDIENCE}\0")),
        12 => quoted(&format!(" {AUDIENCE}")),
        13 => good.replace('/', "\\/"),
        14 => good.replace('a', "\\u0061"),
        15 => "[]".to_owned(),
        16 => "[\"\"]".to_owned(),
        _ => dice.pick(&ANY).to_owned(),
    };
    claims.set("aud", raw);
}

fn iss(claims: &mut Members, dice: &mut Dice<'_>) {
    let own = dice.lab.issuers[dice.own().issuer].clone();
    let raw = match dice.rng.u32(..14) {
        0 | 1 => quoted(&dice.lab.issuers[1 - dice.own().issuer]),
        2 => quoted(own.trim_end_matches('/')),
        3 => quoted(&format!("{own}/")),
        4 => quoted(&own.to_uppercase()),
        5 => quoted(&own.replace("127.0.0.1", "localhost")),
        6 => format!("[{}]", quoted(&own)),
        7 => quoted(&own).replace('/', "\\/"),
        8 => quoted(&own).replace('h', "\\u0068"),
        9 => quoted(&format!("{own}\0")),
        10 => quoted(&format!(" {own} ")),
        11 => quoted(&format!("{own}?")),
        _ => dice.pick(&ANY).to_owned(),
    };
    claims.set("iss", raw);
}

fn sub(claims: &mut Members, dice: &mut Dice<'_>) {
    let raw = match dice.rng.u32(..8) {
        0 => quoted("\r\nX-Bonterra-Subject: root"),
        1 => quoted(" , %0d%0a\u{0}\u{7f}"),
        2 => quoted("e\u{301} \u{1f4a9} \u{202e}"),
        3 => "\"\\ud83d\\ude00\"".to_owned(),
        4 => "\"\\ud83d\"".to_owned(),
        // Three bytes each, and three characters for a byte in a header: over 8 KiB there.
        5 => quoted(&"\u{4e2d}".repeat(1000)),
        _ => dice.pick(&ANY).to_owned(),
    };
    claims.set("sub", raw);
}

fn any(claims: &mut Members, name: &str, dice: &mut Dice<'_>) {
    claims.set(name, dice.pick(&ANY));
}

fn cnf(claims: &mut Members, dice: &mut Dice<'_>) {
    let raw = dice.pick(&[
        "{\"jkt\":\"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I\"}",
        "{\"x5t#S256\":\"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2\"}",
        "{\"jwk\":{}}",
        "{}",
        "null",
        "\"x\"",
        "[]",
        "false",
    ]);
    claims.set("cnf", raw);
}

fn scope(claims: &mut Members, dice: &mut Dice<'_>) {
    let name = dice.pick(&["scope", "scp", "permissions"]);
    let raw = dice.pick(&[
        "\"\"",
        "\"a  b\"",
        "[\"a\",\"b\"]",
        "[1,null]",
        "{}",
        "null",
        "7",
    ]);
    claims.set(name, raw);
}

fn normalised(claims: &mut Members, dice: &mut Dice<'_>) {
    let name = dice.pick(&["iss", "aud"]);
    let Some(raw) = claims.get(name).map(str::to_owned) else {
        return;
    };
    let raw = match dice.rng.u32(..6) {
        0 => raw.replacen('t', "\u{ff54}", 1),
        1 => raw.replacen('a', "\u{430}", 1),
        2 => raw.replacen('t', "t\u{301}", 1),
        3 => raw.replacen('/', "/\u{200b}", 1),
        4 => raw.replacen("://", "://\u{ad}", 1),
        _ => raw.replacen('/', "\\u002f", 1),
    };
    claims.set(name, raw);
}

fn nested(claims: &mut Members, dice: &mut Dice<'_>) {
    match dice.rng.u32(..3) {
        // What matters one level too deep.
        0 => {
            let inner = claims.render();
            *claims = Members(vec![("\"claims\"".to_owned(), inner)]);
        }
        1 => {
            let inner = claims.render();
            claims.0.push(("\"claims\"".to_owned(), inner));
        }
        _ => claims.set(
            "x",
            "{\"iss\":\"x\",\"exp\":0,\"aud\":[],\"nbf\":9999999999}",
        ),
    }
}

fn long(claims: &mut Members, dice: &mut Dice<'_>) {
    let length = dice.rng.usize(1..7000);
    claims.set("x", quoted(&"x".repeat(length)));
}

// === members of either ===

fn unknown(members: &mut Members, dice: &mut Dice<'_>) {
    let name = dice.pick(&["x", "", "__proto__", "urn:x", "\u{0}", "alg ", "exp\u{0}"]);
    let raw = match dice.rng.u32(..4) {
        0 => dice.pick(&[
            "{\"a\":1,\"a\":2}",
            "{\"a\":[{\"b\":1,\"\\u0062\":2}]}",
            "1e400",
            "-1e999",
            "\"\\ud800\"",
            "1e-400",
            "123456789012345678901234567890",
        ]),
        _ => dice.pick(&ANY),
    };
    let at = dice.at(members.0.len() + 1);
    members.0.insert(at, (quoted(name), raw.to_owned()));
}

fn removed(members: &mut Members, dice: &mut Dice<'_>) {
    let at = dice.at(members.0.len());
    if at < members.0.len() {
        members.0.remove(at);
    }
}

fn retyped(members: &mut Members, dice: &mut Dice<'_>) {
    let at = dice.at(members.0.len());
    let raw = dice.pick(&ANY).to_owned();
    if let Some((_, value)) = members.0.get_mut(at) {
        *value = raw;
    }
}

fn repeated(members: &mut Members, dice: &mut Dice<'_>) {
    let from = dice.at(members.0.len());
    let Some((mut name, mut value)) = members.0.get(from).cloned() else {
        return;
    };
    if dice.per_cent(30) {
        name = escape(&name, dice);
    }
    if dice.per_cent(50) {
        value = dice.pick(&ANY).to_owned();
    }
    let at = dice.at(members.0.len() + 1);
    members.0.insert(at, (name, value));
}

fn reordered(members: &mut Members, dice: &mut Dice<'_>) {
    dice.rng.shuffle(&mut members.0);
}

fn escaped(members: &mut Members, dice: &mut Dice<'_>) {
    for (name, value) in &mut members.0 {
        if dice.per_cent(40) {
            *name = escape(name, dice);
        }
        if value.starts_with('"') && dice.per_cent(40) {
            *value = escape(value, dice);
        }
    }
}

fn recased(members: &mut Members, dice: &mut Dice<'_>) {
    let at = dice.at(members.0.len());
    if let Some((name, _)) = members.0.get_mut(at) {
        *name = match dice.rng.u32(..3) {
            0 => name.to_uppercase(),
            1 => format!("\" {}", name.trim_start_matches('"')),
            _ => format!("{}\\u0000\"", name.trim_end_matches('"')),
        };
    }
}

/// A JSON string with some characters written as escapes. Not for strings that have escapes.
fn escape(raw: &str, dice: &mut Dice<'_>) -> String {
    let inner = raw.trim_matches('"');
    if inner.contains('\\') {
        return raw.to_owned();
    }
    let mut text = String::from('"');
    for character in inner.chars() {
        if dice.per_cent(30) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(character);
        }
    }
    text.push('"');
    text
}

// === JSON text ===

fn around(json: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let text = String::from_utf8_lossy(json).into_owned();
    let text = match dice.rng.u32(..10) {
        0 => format!("\u{feff}{text}"),
        1 => format!("{text}{text}"),
        2 => format!("[{text}]"),
        3 => quoted(&text),
        4 => format!("{text}x"),
        5 => format!("{text}\0"),
        6 => format!("/* x */{text}"),
        7 => format!("{text}// x"),
        8 => format!("{text},"),
        _ => format!(")]}}',\n{text}"),
    };
    *json = text.into_bytes();
}

fn punctuation(json: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let text = String::from_utf8_lossy(json).into_owned();
    let text = match dice.rng.u32(..8) {
        0 => text.replacen('}', ",}", 1),
        1 => text.replacen('{', "{,", 1),
        2 => text.replace('"', "'"),
        3 => text.replacen(',', ",/**/", 1),
        4 => text.replacen(':', "=", 1),
        5 => text.replacen(',', ";", 1),
        6 => text.replacen(',', "", 1),
        _ => text.replacen('"', "", 2),
    };
    *json = text.into_bytes();
}

fn number(json: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let raw = dice.pick(&[
        "01", "1.", ".5", "+1", "NaN", "-", "0x10", "1_000", "1e", "--1", "1e999",
    ]);
    member(json, raw.as_bytes());
}

fn bad_text(json: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let raw: &[u8] = match dice.rng.u32(..9) {
        0 => b"\"\xff\"",
        1 => b"\"\xc0\xaf\"",
        2 => b"\"\xed\xa0\x80\"",
        3 => b"\"\xf5\x80\x80\x80\"",
        4 => b"\"a\nb\"",
        5 => b"\"\\x41\"",
        6 => b"\"\\u12\"",
        7 => b"\"\\udc00\\ud800\"",
        _ => b"\"\x00\"",
    };
    member(json, raw);
}

fn deep(json: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let levels = [10, 120, 130, 1000][dice.at(4)];
    let (open, close) = if dice.per_cent(50) {
        ("[", "]")
    } else {
        ("{\"a\":", "}")
    };
    let raw = format!("{}1{}", open.repeat(levels), close.repeat(levels));
    member(json, raw.as_bytes());
}

/// Puts one more member first.
fn member(json: &mut Vec<u8>, raw: &[u8]) {
    if let Some(at) = json.iter().position(|byte| *byte == b'{') {
        let new = [b"\"y\":", raw, b","].concat();
        json.splice(at + 1..at + 1, new);
    }
}

fn white_space(json: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let text = String::from_utf8_lossy(json).into_owned();
    let space = dice.pick(&[
        " ", "\n", "\t", "\r\n", "\u{a0}", "\u{c}", "\u{2028}", "\u{b}",
    ]);
    let text = match dice.rng.u32(..4) {
        0 => format!("{space}{text}"),
        1 => format!("{text}{space}"),
        2 => text.replace("\",\"", &format!("\"{space},{space}\"")),
        _ => text.replace("\":", &format!("\"{space}:{space}")),
    };
    *json = text.into_bytes();
}

fn utf16(json: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let text = String::from_utf8_lossy(json).into_owned();
    let big = dice.per_cent(50);
    let bytes = |unit: u16| {
        if big {
            unit.to_be_bytes()
        } else {
            unit.to_le_bytes()
        }
    };
    *json = text.encode_utf16().flat_map(bytes).collect();
}

// === signature ===

fn borrowed(signature: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let key = if dice.per_cent(70) {
        dice.key
    } else {
        dice.at(dice.lab.keys.len())
    };
    let at = dice.at(64);
    signature.clone_from(&dice.lab.pooled(key, at).signature);
}

fn zeros(signature: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let zeros = vec![0; dice.rng.usize(1..4)];
    match dice.rng.u32(..3) {
        0 => signature.extend(zeros),
        1 => drop(signature.splice(..0, zeros)),
        _ => {
            let half = signature.len() / 2;
            drop(signature.splice(half..half, zeros));
        }
    }
}

fn halves(signature: &mut Vec<u8>, _: &mut Dice<'_>) {
    let half = signature.len() / 2;
    signature.rotate_left(half);
}

/// Another signature that sloppy arithmetic takes for the same: `n - s` of ECDSA (good, as ECDSA has
/// two of each), `s + L` of Ed25519 (refused by RFC 8032 §5.1.7), `s + n` of RSA (RFC 8017 §8.2.2).
fn complement(signature: &mut Vec<u8>, dice: &mut Dice<'_>) {
    const P256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    const L: &str = "1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed";
    let half = signature.len() / 2;
    match (dice.own().alg, dice.own().rsa()) {
        (_, Some((n, _))) => *signature = sum(signature, &n),
        ("ES256", None) => {
            let s = signature.split_off(half);
            signature.extend(difference(&hex(P256), &s));
        }
        _ => {
            let mut s = signature.split_off(half);
            s.reverse();
            let mut s = sum(&s, &hex(L));
            s.reverse();
            s.truncate(32);
            signature.extend(s);
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The sum of two big-endian numbers, one byte longer only if it has to be.
fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let (mut out, mut carry) = (Vec::new(), 0);
    let (mut a, mut b) = (a.iter().rev(), b.iter().rev());
    loop {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) => {
                let total = u16::from(*x.unwrap_or(&0)) + u16::from(*y.unwrap_or(&0)) + carry;
                out.push(total.to_le_bytes()[0]);
                carry = total >> 8;
            }
        }
    }
    if carry > 0 {
        out.push(1);
    }
    out.reverse();
    out
}

/// `a - b` of two big-endian numbers of the same length, modulo their width.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let (mut out, mut borrow) = (Vec::new(), false);
    for (x, y) in a.iter().rev().zip(b.iter().rev()) {
        let (first, low) = x.overflowing_sub(*y);
        let (second, lower) = first.overflowing_sub(u8::from(borrow));
        borrow = low || lower;
        out.push(second);
    }
    out.reverse();
    out
}

fn blank(signature: &mut Vec<u8>, dice: &mut Dice<'_>) {
    match dice.rng.u32(..4) {
        0 => signature.fill(0),
        1 => signature.fill(0xff),
        2 => signature.clear(),
        _ => {
            let half = signature.len() / 2;
            signature[half..].fill(0);
        }
    }
}

/// `r || s` as a DER sequence of two integers.
fn as_der(signature: &mut Vec<u8>, _: &mut Dice<'_>) {
    let half = signature.len() / 2;
    let (r, s) = signature.split_at(half);
    let integer = |number: &[u8]| {
        let mut bytes = vec![2, 33, 0];
        bytes.extend(number.iter().take(32));
        bytes
    };
    let body = [integer(r), integer(s)].concat();
    *signature = [vec![0x30, 70], body].concat();
}

// === bytes and characters ===

fn flip(bytes: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let (at, bit) = (dice.at(bytes.len()), dice.rng.u32(..8));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

fn delete(bytes: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let at = dice.at(bytes.len());
    let end = (at + dice.rng.usize(1..4)).min(bytes.len());
    drop(bytes.drain(at.min(end)..end));
}

fn insert(bytes: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let at = dice.at(bytes.len() + 1);
    let byte = if dice.per_cent(50) {
        b"Aa0-_+/=. ,\"\t\r\n%~"[dice.at(17)]
    } else {
        dice.rng.u8(..)
    };
    bytes.insert(at, byte);
}

fn swap(bytes: &mut Vec<u8>, dice: &mut Dice<'_>) {
    if !bytes.is_empty() {
        let (a, b) = (dice.at(bytes.len()), dice.at(bytes.len()));
        bytes.swap(a, b);
    }
}

// === the finished token ===

fn split(token: &[u8]) -> Vec<Vec<u8>> {
    token
        .split(|byte| *byte == b'.')
        .map(<[u8]>::to_vec)
        .collect()
}

fn join(segments: &[Vec<u8>]) -> Vec<u8> {
    segments.join(&b'.')
}

fn segments(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let mut list = split(token);
    let (a, b) = (dice.at(list.len()), dice.at(list.len()));
    match dice.rng.u32(..7) {
        0 => list.swap(a, b),
        1 => list[a].clear(),
        2 => drop(list.remove(a)),
        3 => {
            let copy = list[a].clone();
            list.insert(b, copy);
        }
        4 => list[a] = list[b].clone(),
        5 => list.reverse(),
        _ => list.insert(a, Vec::new()),
    }
    *token = join(&list);
}

/// Parts of this token with parts of another good one.
fn joined(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let key = if dice.per_cent(60) {
        dice.key
    } else {
        dice.at(dice.lab.keys.len())
    };
    let at = dice.at(64);
    let good = dice.lab.pooled(key, at);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes).into_bytes();
    let other = [
        encode(good.header.render().as_bytes()),
        encode(good.claims.render().as_bytes()),
        encode(&good.signature),
    ];
    let mut list = split(token);
    match dice.rng.u32(..4) {
        0..2 => {
            let at = dice.at(list.len());
            list[at] = other[at % 3].clone();
        }
        2 => list.extend(other),
        _ => {
            let at = dice.at(list.len());
            list[at].extend(&other[at % 3]);
        }
    }
    let glue = if dice.per_cent(80) { b'.' } else { b',' };
    *token = list.join(&glue);
}

fn dots(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    match dice.rng.u32(..4) {
        0 => token.push(b'.'),
        1 => token.insert(0, b'.'),
        2 => *token = vec![b'.'; dice.rng.usize(1..100)],
        _ => {
            let at = dice.at(token.len());
            token.insert(at, b'.');
        }
    }
}

fn padding(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let mut list = split(token);
    let at = dice.at(list.len());
    list[at].extend_from_slice(
        dice.pick(&["=", "==", "===", "%3D", "A", "AA", "A="])
            .as_bytes(),
    );
    *token = join(&list);
}

fn spaces(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let space = dice
        .pick(&[" ", "  ", "\t", "\u{a0}", "%20", "+"])
        .as_bytes();
    let at = match dice.rng.u32(..4) {
        0 => 0,
        1 => token.len(),
        2 => token.iter().position(|byte| *byte == b'.').unwrap_or(0),
        _ => dice.at(token.len()),
    };
    drop(token.splice(at..at, space.iter().copied()));
}

/// The other base64 alphabet, in one segment or all.
fn alphabet(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let mut list = split(token);
    let only = dice.at(list.len());
    let all = dice.per_cent(50);
    for (at, segment) in list.iter_mut().enumerate() {
        if let (true, Ok(bytes)) = (all || at == only, URL_SAFE_NO_PAD.decode(&*segment)) {
            *segment = STANDARD_NO_PAD.encode(bytes).into_bytes();
        }
    }
    *token = join(&list);
}

/// The last character of a segment replaced by a neighbour: where the segment does not end on a
/// whole byte, only bits change that stand for nothing.
fn spare_bits(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut list = split(token);
    let at = dice.at(list.len());
    let bits = dice.rng.usize(1..4);
    if let Some(last) = list[at].last_mut()
        && let Some(value) = ALPHABET.iter().position(|own| own == last)
    {
        *last = ALPHABET[value ^ bits];
    }
    *token = join(&list);
}

fn other_case(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    match dice.rng.u32(..3) {
        0 => token.make_ascii_lowercase(),
        1 => token.make_ascii_uppercase(),
        _ => {
            let at = dice.at(token.len());
            if let Some(byte) = token.get_mut(at) {
                *byte ^= 0x20;
            }
        }
    }
}

fn wrapped(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let text = String::from_utf8_lossy(token).into_owned();
    let text = match dice.rng.u32(..9) {
        0 => format!("\"{text}\""),
        1 => format!("Bearer {text}"),
        2 => format!("{text},"),
        3 => URL_SAFE_NO_PAD.encode(text),
        4 => format!("<{text}>"),
        5 => format!("{text};a=b"),
        6 => text.replace('.', "%2E"),
        7 => text.replace('.', "\u{ff0e}"),
        _ => {
            let parts: Vec<&str> = text.splitn(3, '.').collect();
            let part = |at: usize| parts.get(at).copied().unwrap_or_default();
            format!(
                "{{\"protected\":\"{}\",\"payload\":\"{}\",\"signature\":\"{}\"}}",
                part(0),
                part(1),
                part(2)
            )
        }
    };
    *token = text.into_bytes();
}

fn too_long(token: &mut Vec<u8>, dice: &mut Dice<'_>) {
    let length = if dice.per_cent(90) {
        dice.rng.usize(7000..10_000)
    } else {
        40_000
    };
    let filler = dice.pick(&["A", ".", "e30."]).as_bytes();
    let filler = filler.iter().copied().cycle();
    token.extend(filler.take(length.saturating_sub(token.len())));
}
