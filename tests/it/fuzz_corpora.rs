//! The kept inputs of the fuzz targets, each through its property: what was found once stays found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod properties;

use properties::Outcome;

/// Beyond this a corpus no longer belongs into the repository: minimise it (fuzz/README.md).
const MAX_FILES: usize = 200;
const MAX_BYTES: u64 = 300 << 10;

fn below(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn stems(files: &[PathBuf]) -> BTreeSet<String> {
    let stem = |file: &PathBuf| {
        file.file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
    };
    files.iter().filter_map(stem).collect()
}

#[test]
fn every_kept_input_keeps_its_property() {
    let mut bytes = 0;
    for (name, check) in properties::ALL {
        let files = below(&format!("corpus/{name}"));
        assert!(files.len() <= MAX_FILES, "{name}: {} files", files.len());
        let mut accepted = 0;
        for file in &files {
            let input = fs::read(file).expect("a file");
            bytes += input.len() as u64;
            let outcome = std::panic::catch_unwind(|| check(&input));
            let outcome = outcome.unwrap_or_else(|_| panic!("{name}: {}", file.display()));
            accepted += usize::from(outcome == Outcome::Accepted);
        }
        // A property that sees one side only says little.
        assert!(accepted > 0, "{name}: no input is accepted");
        assert!(accepted < files.len(), "{name}: no input is refused");
    }
    assert!(bytes <= MAX_BYTES, "{bytes} bytes of corpora");
}

#[test]
fn every_property_has_its_target_its_corpus_and_its_dictionary() {
    let names: BTreeSet<String> = properties::ALL.map(|(name, _)| name.to_owned()).into();
    for folder in ["corpus", "dictionaries", "targets"] {
        assert_eq!(stems(&below(folder)), names, "fuzz/{folder}");
    }
}

/// What is fuzzed is what is built: both locks have the same versions.
#[test]
fn the_fuzzed_dependencies_are_the_gateways() {
    let packages = |path: &str| -> BTreeSet<(String, String)> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let lock: toml::Table = fs::read_to_string(path)
            .expect("a lock file")
            .parse()
            .expect("TOML");
        let list = lock["package"].as_array().expect("packages").iter();
        let text = |package: &toml::Value, key| package[key].as_str().expect(key).to_owned();
        list.map(|package| (text(package, "name"), text(package, "version")))
            .collect()
    };
    let own = ["arbitrary", "bonterra-gateway-fuzz", "libfuzzer-sys"];
    let (ours, fuzzed) = (packages("Cargo.lock"), packages("fuzz/Cargo.lock"));
    let foreign: Vec<_> = fuzzed
        .difference(&ours)
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .collect();
    assert!(
        foreign.is_empty(),
        "{foreign:?}: `cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml` brings them in line"
    );
}
