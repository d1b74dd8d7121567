//! A decision told step by step: what `explain` shows, said by the very code that decides.

/// Hears of each check that a request has passed. Whoever listens changes nothing.
pub trait Steps {
    /// A check has been passed. `what` is what it found; nobody composes it unless somebody listens.
    fn passed(&mut self, check: &'static str, what: impl FnOnce() -> String);
}

/// Nobody listens. Compiles to nothing, which is what requests pay for `explain`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untold;

/// One check that was passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was checked, in one word: `signature`.
    pub check: &'static str,
    /// What was found. Names keys and claims; never holds a token or a signature.
    pub found: String,
}

/// Everything that was passed, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told(pub Vec<Step>);

// === impl Untold ===

impl Steps for Untold {
    fn passed(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
}

// === impl Told ===

impl Steps for Told {
    fn passed(&mut self, check: &'static str, what: impl FnOnce() -> String) {
        self.0.push(Step {
            check,
            found: what(),
        });
    }
}
