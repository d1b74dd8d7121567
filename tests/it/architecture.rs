//! The rules of DESIGN §7, read from the source text: who imports whom, where hyper's types may
//! appear, what deciding code may not do, and how long a file may be. Tests are left aside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the rim to the core. A module may use every layer below its own.
const LAYERS: [&[&str]; 8] = [
    &["main"],
    &["cli"],
    &["app"],
    &["admin", "proxy", "reload", "server"],
    &["gateway"],
    &["snapshot"],
    &[
        "authn",
        "authz",
        "contract",
        "cors",
        "headers",
        "internal_jwt",
        "limit",
        "oauth",
        "route",
        "upstream",
    ],
    &[
        "identity",
        "introspection",
        "keys",
        "outbound",
        "rejection",
        "request",
        "steps",
        "store",
        "strict_json",
        "telemetry",
    ],
];

/// Modules that use nothing of ours, and who may use them.
const LEAVES: [(&str, &[&str]); 3] = [
    ("config", &["app", "cli", "reload", "snapshot"]),
    ("demo", &["cli"]),
    ("socket", &["server", "upstream"]),
];

/// Uses within a layer, each with its reason. None may go unused, and none may close a circle.
const WITHIN: [(&str, &str, &str); 24] = [
    ("admin", "reload", "POST /-/reload"),
    (
        "admin",
        "server",
        "readiness is the state of what is being served",
    ),
    (
        "reload",
        "server",
        "puts the new snapshot where the workers look",
    ),
    ("server", "proxy", "hands over what was admitted"),
    (
        "upstream",
        "headers",
        "what may not come in the head may not come behind the body either",
    ),
    (
        "upstream",
        "oauth",
        "reads the reply to its own token request as clients' are read",
    ),
    (
        "authn",
        "headers",
        "a verified claim is encoded once, when the identity is made",
    ),
    (
        "keys",
        "identity",
        "the age of keys is told in the same seconds as that of tokens",
    ),
    (
        "introspection",
        "identity",
        "questions about one token are known by its digest",
    ),
    (
        "introspection",
        "keys",
        "discovery finds the endpoint where it finds the keys",
    ),
    ("introspection", "outbound", "asks the issuer"),
    (
        "introspection",
        "rejection",
        "a token that cannot be asked about is refused",
    ),
    ("introspection", "strict_json", "reads what the issuer says"),
    ("introspection", "telemetry", "counts questions"),
    ("keys", "outbound", "fetches keys"),
    ("keys", "strict_json", "a key with a member twice is none"),
    ("keys", "telemetry", "counts fetches"),
    (
        "request",
        "identity",
        "a peer's certificate is named as tokens name it",
    ),
    (
        "request",
        "rejection",
        "a request that cannot be read is refused",
    ),
    (
        "store",
        "identity",
        "tokens and subjects are revoked as identities name them",
    ),
    (
        "store",
        "telemetry",
        "counts what it asks of Redis, and whether there are answers",
    ),
    (
        "strict_json",
        "identity",
        "reads objects as the members that claims are made of",
    ),
    (
        "telemetry",
        "identity",
        "the access record names the caller",
    ),
    (
        "telemetry",
        "rejection",
        "the access record and the metrics name the reason",
    ),
];

/// Where HTTP is spoken, rather than decided about.
const SPEAKS_HTTP: [&str; 9] = [
    "admin/",
    "cli/admin_client",
    "demo/",
    "keys/fetch",
    "oauth/client",
    "outbound",
    "proxy/",
    "server/",
    "upstream/",
];

/// Where requests are decided about: values in, values out.
const DECIDES: [&str; 13] = [
    "authn/",
    "authz",
    "contract/",
    "cors",
    "gateway",
    "headers",
    "identity",
    "internal_jwt/",
    "limit",
    "rejection",
    "request",
    "route",
    "strict_json",
];

/// What deciding code has no use for.
const IO: [&str; 9] = [
    "async",
    "await",
    "fs",
    "pingora_timeout",
    "spawn",
    "tokio",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
];

const MAX_LINES: usize = 400;

/// A source file without its tests.
struct Source {
    /// Below `src/`, without `.rs`: `keys/fetch`.
    name: String,
    text: String,
    /// Identifiers, `::`, and braces.
    tokens: Vec<String>,
    lines: usize,
}

#[test]
fn imports_follow_the_layers() {
    let mut wrong = Vec::new();
    for (from, to, file) in uses() {
        if !permitted(&from, &to) {
            wrong.push(format!("src/{file}: {from} uses {to}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "against the layers:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_module_has_its_layer_and_every_exception_its_use() {
    let modules: BTreeSet<String> = sources()
        .iter()
        .map(|source| module(&source.name))
        .collect();
    for module in modules.iter().filter(|module| *module != "lib") {
        let known = layer(module).is_some() || LEAVES.iter().any(|(leaf, _)| leaf == module);
        assert!(
            known,
            "src/{module}: say in tests/it/architecture.rs in which layer it is"
        );
    }
    let uses: BTreeSet<(String, String)> =
        uses().into_iter().map(|(from, to, _)| (from, to)).collect();
    for (from, to, reason) in WITHIN {
        assert!(!reason.is_empty(), "{from} uses {to}: why?");
        assert!(
            uses.contains(&(from.to_owned(), to.to_owned())),
            "{from} uses {to} no more: strike it out"
        );
    }
}

/// Layers forbid circles by themselves; the uses within a layer could close one.
#[test]
fn no_module_uses_itself_through_others() {
    let mut below: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to, _) in uses() {
        below.entry(from).or_default().insert(to);
    }
    for start in below.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(module) = next.pop() {
            for used in below.get(module).into_iter().flatten() {
                assert!(used != start, "{start} is used by what it uses: {module}");
                if reached.insert(used) {
                    next.push(used);
                }
            }
        }
    }
}

#[test]
fn hyper_stays_where_http_is_spoken() {
    for source in sources() {
        let speaks = SPEAKS_HTTP.iter().any(|place| within(&source.name, place));
        let foreign = source
            .tokens
            .iter()
            .find(|token| *token == "hyper" || token.starts_with("hyper_"));
        assert!(
            speaks || foreign.is_none(),
            "src/{} uses {}",
            source.name,
            foreign.unwrap_or(&String::new())
        );
    }
}

#[test]
fn deciding_code_does_no_io() {
    let mut decides = 0;
    for source in sources() {
        if DECIDES.iter().any(|place| within(&source.name, place)) {
            decides += 1;
            let forbidden: Vec<_> = source
                .tokens
                .iter()
                .filter(|token| IO.contains(&token.as_str()))
                .collect();
            assert!(
                forbidden.is_empty(),
                "src/{} decides, and uses {forbidden:?}",
                source.name
            );
        }
    }
    assert!(decides >= DECIDES.len());
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    for source in sources() {
        assert!(
            source.text.starts_with("//! "),
            "src/{} begins without a //! comment",
            source.name
        );
        assert!(
            source.lines <= MAX_LINES,
            "src/{} has {} lines",
            source.name,
            source.lines
        );
    }
}

/// The rules above are only as good as the reading of the source.
#[test]
fn the_source_is_read_as_it_is_meant() {
    let text = r##"
//! crate::comment
use crate::alpha::{self, One};
use crate::{beta, gamma::Two};
use super::delta;
use super::super::epsilon::Three;
const TEXT: &str = "crate::text"; const RAW: &str = r#"crate::raw""#; const QUOTE: char = '"';
fn f<'a>(x: &'a str) { crate::zeta::call(x) } /* crate::block */
#[cfg(test)]
mod tests { use crate::tests_only::X; fn g() { if true { } } }
#[cfg(test)]
use crate::also_only;
use crate::eta;
"##;
    let source = Source::new("one/two".to_owned(), text.to_owned());
    let found: BTreeSet<_> = source.modules().into_iter().collect();
    let expected = ["alpha", "beta", "epsilon", "eta", "gamma", "zeta"];
    assert_eq!(found, expected.map(str::to_owned).into());
    assert_eq!(
        Source::new(
            "main".to_owned(),
            "bonterra_gateway::cli::main()".to_owned()
        )
        .modules(),
        ["cli"]
    );
    let lines = Source::new(
        "x".to_owned(),
        "a\n#[cfg(test)]\nmod tests {\n}\nb\n".to_owned(),
    )
    .lines;
    assert_eq!(lines, 2);
}

fn permitted(from: &str, to: &str) -> bool {
    if let Some((_, users)) = LEAVES.iter().find(|(leaf, _)| *leaf == to) {
        return users.contains(&from);
    }
    match (layer(from), layer(to)) {
        (Some(from), Some(to)) if from < to => true,
        _ => WITHIN
            .iter()
            .any(|(a, b, _)| *a == from && *b == to && layer(from) == layer(to)),
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Every use of one of our modules by another, with the file.
fn uses() -> Vec<(String, String, String)> {
    let mut uses = Vec::new();
    for source in sources() {
        let from = module(&source.name);
        for to in source.modules() {
            if to != from && from != "lib" {
                uses.push((from.clone(), to, source.name.clone()));
            }
        }
    }
    assert!(uses.len() > 100, "the sources were not read");
    uses
}

/// The top-level module of a file.
fn module(name: &str) -> String {
    name.split('/').next().unwrap_or(name).to_owned()
}

/// Whether a file is at a place: a folder `a/`, or a module `a` with what is below it.
fn within(name: &str, place: &str) -> bool {
    match place.strip_suffix('/') {
        Some(folder) => name == folder || name.starts_with(place),
        None => {
            name == place
                || name
                    .strip_prefix(place)
                    .is_some_and(|rest| rest.starts_with('/'))
        }
    }
}

/// All files below `src/` but those that are tests as a whole.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let texts: BTreeMap<PathBuf, String> = files
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).expect("UTF-8")))
        .collect();
    let tests: BTreeSet<PathBuf> = texts
        .iter()
        .flat_map(|(path, text)| test_files(path, text))
        .collect();
    let kept = texts.into_iter().filter(|(path, _)| !tests.contains(path));
    kept.map(|(path, text)| {
        let name = path
            .strip_prefix(&root)
            .expect("below src")
            .with_extension("");
        let name = name
            .to_str()
            .expect("UTF-8")
            .trim_end_matches("/mod")
            .to_owned();
        Source::new(name, text)
    })
    .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The files that a file mounts for its tests only: `#[cfg(test)] mod x;`.
fn test_files(path: &Path, text: &str) -> Vec<PathBuf> {
    let folder = path.parent().expect("a folder");
    let own = if path
        .file_name()
        .is_some_and(|name| name == "mod.rs" || name == "lib.rs" || name == "main.rs")
    {
        folder.to_owned()
    } else {
        path.with_extension("")
    };
    let mut files = Vec::new();
    for item in text.split("#[cfg(test)]").skip(1) {
        let item = item.trim_start();
        if let Some(rest) = item.strip_prefix("#[path = \"") {
            files.push(folder.join(rest.split('"').next().expect("a path")));
            continue;
        }
        let declared = item
            .split_once("mod ")
            .filter(|(before, _)| before.len() < 12);
        if let Some((name, _)) = declared.and_then(|(_, rest)| rest.split_once(';')) {
            files.extend([
                own.join(format!("{name}.rs")),
                own.join(name).join("mod.rs"),
            ]);
        }
    }
    files
}

// === impl Source ===

impl Source {
    fn new(name: String, text: String) -> Self {
        let code = without_tests(&text);
        let lines = code.lines().count();
        let tokens = tokens(&code);
        Self {
            name,
            text,
            tokens,
            lines,
        }
    }

    /// The top-level modules that are named, each time.
    fn modules(&self) -> Vec<String> {
        let mut found = Vec::new();
        let depth = self.name.split('/').count();
        let token = |at: usize| self.tokens.get(at).map_or("", String::as_str);
        for at in 0..self.tokens.len() {
            let mut end = match token(at) {
                "crate" | "bonterra_gateway" => at + 1,
                "super" if at < 2 || token(at - 2) != "super" => {
                    let above = (0..depth)
                        .take_while(|step| token(at + step * 2) == "super")
                        .count();
                    if above < depth {
                        continue;
                    }
                    at + depth * 2 - 1
                }
                _ => continue,
            };
            if token(end) != "::" {
                continue;
            }
            end += 1;
            if token(end) == "{" {
                found.extend(self.group(end + 1));
            } else if token(end) == "at" {
                // `at!` is config's, though macros live at the root.
                found.push("config".to_owned());
            } else {
                found.push(token(end).to_owned());
            }
        }
        // Constants and macros of the crate's root are in nobody's module.
        found.retain(|name| name.starts_with(|c: char| c.is_ascii_lowercase()));
        found
    }

    /// The first names in a group that begins at `at`.
    fn group(&self, at: usize) -> Vec<String> {
        let (mut names, mut depth, mut first) = (Vec::new(), 0, true);
        for token in self.tokens.iter().skip(at) {
            match token.as_str() {
                "{" => depth += 1,
                "}" if depth == 0 => break,
                "}" => depth -= 1,
                "," if depth == 0 => first = true,
                name if first && depth == 0 => {
                    names.push(name.to_owned());
                    first = false;
                }
                _ => {}
            }
        }
        names
    }
}

/// The text without the items under `#[cfg(test)]`.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]\n") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let blank = blanked(item);
        let block = blank
            .find('{')
            .filter(|brace| blank.find(';').is_none_or(|end| *brace < end));
        let end = match block {
            None => blank.find(';').map_or(item.len(), |end| end + 1),
            Some(brace) => {
                let mut depth = 0;
                let close = blank.bytes().enumerate().skip(brace).find(|(_, byte)| {
                    match byte {
                        b'{' => depth += 1,
                        b'}' => depth -= 1,
                        _ => {}
                    }
                    depth == 0
                });
                close.map_or(item.len(), |(at, _)| at + 1)
            }
        };
        rest = item[end..].strip_prefix('\n').unwrap_or(&item[end..]);
    }
    kept.push_str(rest);
    kept
}

/// The text with blanks in place of comments and of what stands in quotes; as long as before.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let length = if rest.starts_with(b"//") {
            position(rest, b"\n")
        } else if rest.starts_with(b"/*") {
            position(rest, b"*/") + 2
        } else if rest.starts_with(b"r\"") || rest.starts_with(b"r#") {
            let marks = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            let end = [&b"\""[..], &b"#".repeat(marks)].concat();
            let open = marks + 2;
            if rest.get(open - 1) == Some(&b'"') {
                open + position(&rest[open..], &end) + end.len()
            } else {
                1
            }
        } else if rest[0] == b'"' {
            let mut end = 1;
            while end < rest.len() && rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            end + 1
        } else if rest.starts_with(b"'\\") {
            3 + position(&rest[3..], b"'") + 1
        } else if rest[0] == b'\'' && rest.get(2) == Some(&b'\'') {
            3
        } else {
            at += 1;
            continue;
        };
        let end = (at + length).min(bytes.len());
        out[at..end]
            .iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn position(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len())
        .position(|window| window == part)
        .unwrap_or(text.len())
}

/// Identifiers, `::`, braces and commas.
fn tokens(code: &str) -> Vec<String> {
    let code = blanked(code);
    let mut tokens = Vec::new();
    let mut word = String::new();
    let mut chars = code.chars().peekable();
    while let Some(char) = chars.next() {
        if char.is_alphanumeric() || char == '_' {
            word.push(char);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        match char {
            ':' if chars.next_if_eq(&':').is_some() => tokens.push("::".to_owned()),
            '{' | '}' | ',' => tokens.push(char.to_string()),
            _ => {}
        }
    }
    if !word.is_empty() {
        tokens.push(word);
    }
    tokens
}
