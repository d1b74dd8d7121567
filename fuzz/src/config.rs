//! A file without mistakes says the same when it is shown and read again; a mistake has its place in the file.

use super::Outcome;
use bonterra_gateway::config::{self, ConfigErrors};

/// What `config::show` writes for a secret.
const MASK: &str = "********";

/// Checks a gateway.toml.
pub fn check(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    let parsed = config::parse("gateway.toml", text);
    let errors = parsed.source.report(parsed.mistakes.clone());
    if !parsed.mistakes.is_empty() {
        places(&errors, text);
        return Outcome::Refused;
    }
    assert!(errors.is_empty(), "mistakes out of nothing: {errors}");
    let shown = config::show(&parsed.config);
    let again = config::parse("shown", &shown);
    assert!(
        again.mistakes.is_empty(),
        "{}\n{shown}",
        again.source.report(again.mistakes.clone())
    );
    assert_eq!(config::show(&again.config), shown);
    if !shown.contains(MASK) {
        assert_eq!(again.config, parsed.config, "{shown}");
    }
    Outcome::Accepted
}

fn places(errors: &ConfigErrors, text: &str) {
    assert!(!errors.is_empty(), "mistakes that nobody is told of");
    // A mistake at the end of the file may be on the line that was not begun yet.
    let lines: Vec<&str> = text.split('\n').collect();
    for error in errors {
        let line = error.line.checked_sub(1).and_then(|at| lines.get(at));
        let line = line.unwrap_or_else(|| panic!("line {} of {}", error.line, lines.len()));
        let columns = 1..=line.chars().count() + 1;
        assert!(
            columns.contains(&error.column),
            "column {} of {line:?}: {}",
            error.column,
            error.message
        );
        let hint = error.hint.as_deref().unwrap_or_default();
        assert!(!error.message.is_empty());
        assert!(!error.message.contains(char::is_control), "{error:?}");
        assert!(!hint.contains(char::is_control), "{error:?}");
    }
    assert!(!errors.render(false).is_empty() && !errors.render(true).is_empty());
}
