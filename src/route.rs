//! Which route a request takes: by host, then the most specific path, then the method.

use crate::rejection::{Reason, Rejection};
use http::Method;
use std::collections::HashMap;

/// Path patterns compiled into radix trees, one for each host and one for any host.
///
/// `T` is what a pattern leads to; the table knows nothing of it.
#[derive(Debug)]
pub struct RouteTable<T> {
    hosts: HashMap<Box<str>, PathTable<T>>,
    any_host: PathTable<T>,
}

#[derive(Debug)]
struct PathTable<T> {
    /// One tree, mostly. It cannot hold `/users/{id}` beside `/users/*`: what does not fit into a
    /// tree goes into the next.
    trees: Vec<matchit::Router<usize>>,
    leaves: Vec<Leaf<T>>,
    /// The leaf of each pattern, with parameters made anonymous.
    by_pattern: HashMap<Box<str>, usize>,
}

/// What a path pattern stands for.
#[derive(Debug)]
struct Leaf<T> {
    /// The kinds of its segments; of two that match, the lesser one is more specific.
    kinds: Box<[Segment]>,
    candidates: Vec<Candidate<T>>,
}

/// The kinds of segments, the most specific first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Fixed,
    Parameter,
    Rest,
}

#[derive(Debug, Clone)]
struct Candidate<T> {
    methods: Methods,
    target: T,
}

/// The methods that a route answers; empty means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

/// Why a route cannot be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteError<T> {
    /// The pattern is no path pattern; the text says why.
    Pattern(String),
    /// An earlier route takes all these requests already.
    Shadowed(T),
}

// === impl Methods ===

impl Methods {
    /// The given methods; none means any.
    pub fn new(methods: Vec<Method>) -> Self {
        Self(methods)
    }

    fn contains(&self, method: &Method) -> bool {
        // Whoever answers GET answers HEAD (RFC 9110 §9.3.2).
        self.0.is_empty()
            || self.0.contains(method)
            || (*method == Method::HEAD && self.0.contains(&Method::GET))
    }

    /// Whether these methods, listed earlier, leave `later` without one that it names. A later
    /// route for any method is fine: it takes what the earlier ones leave.
    fn shadow(&self, later: &Self) -> bool {
        self.0.is_empty() || later.0.iter().any(|method| self.contains(method))
    }
}

// === impl RouteTable ===

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self {
            hosts: HashMap::new(),
            any_host: PathTable::default(),
        }
    }
}

impl<T: Clone> RouteTable<T> {
    /// Adds a pattern: `/x` exactly, `/x/*` for `/x` and all below, `/x/{id}` for one segment.
    ///
    /// # Errors
    /// If the pattern is malformed, or if a route with the same pattern, host and an overlapping
    /// method is there already.
    pub fn insert(
        &mut self,
        hosts: &[Box<str>],
        pattern: &str,
        methods: &Methods,
        target: &T,
    ) -> Result<(), RouteError<T>> {
        let candidate = Candidate {
            methods: methods.clone(),
            target: target.clone(),
        };
        if hosts.is_empty() {
            return self.any_host.insert(pattern, candidate);
        }
        for host in hosts {
            self.hosts
                .entry(host.clone())
                .or_default()
                .insert(pattern, candidate.clone())?;
        }
        Ok(())
    }

    /// Finds the target of a request. A host's own routes come first, those for any host after.
    ///
    /// # Errors
    /// [`Reason::NoRoute`], or [`Reason::MethodNotAllowed`] if the path is there for other methods:
    /// a less specific path does not step in, so that a route cannot be slipped past by its method.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<&T, Rejection> {
        let candidates = self.candidates(host, path)?;
        candidates
            .iter()
            .find(|candidate| candidate.methods.contains(method))
            .map(|candidate| &candidate.target)
            .ok_or_else(|| Reason::MethodNotAllowed(allow(candidates, |_| &[])).into())
    }

    /// The `Allow` header of a path: the methods of all its routes. `any` says which they are for a
    /// target that was added for any method.
    ///
    /// # Errors
    /// [`Reason::NoRoute`].
    pub fn allow(
        &self,
        host: &str,
        path: &str,
        any: impl Fn(&T) -> &'static [&'static str],
    ) -> Result<Box<str>, Rejection> {
        Ok(allow(self.candidates(host, path)?, any))
    }

    fn candidates(&self, host: &str, path: &str) -> Result<&[Candidate<T>], Rejection> {
        let own = if self.hosts.is_empty() {
            None
        } else {
            self.hosts.get(host).and_then(|table| table.find(path))
        };
        let candidates = own.or_else(|| self.any_host.find(path));
        Ok(candidates.ok_or(Reason::NoRoute)?)
    }
}

/// The `Allow` header (RFC 9110 §10.2.1) of a path.
fn allow<T>(candidates: &[Candidate<T>], any: impl Fn(&T) -> &'static [&'static str]) -> Box<str> {
    let mut methods: Vec<&str> = Vec::new();
    for Candidate {
        methods: named,
        target,
    } in candidates
    {
        if named.0.is_empty() {
            methods.extend(any(target));
        }
        methods.extend(named.0.iter().map(Method::as_str));
    }
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ").into_boxed_str()
}

// === impl PathTable ===

impl<T> Default for PathTable<T> {
    fn default() -> Self {
        Self {
            trees: Vec::new(),
            leaves: Vec::new(),
            by_pattern: HashMap::new(),
        }
    }
}

impl<T: Clone> PathTable<T> {
    fn find(&self, path: &str) -> Option<&Vec<Candidate<T>>> {
        let matches = self.trees.iter().filter_map(|tree| {
            let leaf = *tree.at(path).ok()?.value;
            self.leaves.get(leaf)
        });
        let leaf = matches.min_by(|a, b| a.kinds.cmp(&b.kinds))?;
        Some(&leaf.candidates)
    }

    fn insert(&mut self, pattern: &str, candidate: Candidate<T>) -> Result<(), RouteError<T>> {
        let Pattern {
            key,
            variants,
            kinds,
        } = Pattern::compile(pattern).map_err(RouteError::Pattern)?;
        let leaf = match self.by_pattern.get(key.as_str()) {
            Some(leaf) => *leaf,
            None => {
                let leaf = self.leaves.len();
                for variant in &variants {
                    self.plant(variant, leaf).map_err(RouteError::Pattern)?;
                }
                self.leaves.push(Leaf {
                    kinds,
                    candidates: Vec::new(),
                });
                self.by_pattern.insert(key.into_boxed_str(), leaf);
                leaf
            }
        };
        let Some(Leaf { candidates, .. }) = self.leaves.get_mut(leaf) else {
            return Ok(());
        };
        if let Some(earlier) = candidates
            .iter()
            .find(|earlier| earlier.methods.shadow(&candidate.methods))
        {
            return Err(RouteError::Shadowed(earlier.target.clone()));
        }
        candidates.push(candidate);
        Ok(())
    }

    /// Adds a variant to the first tree that can hold it.
    fn plant(&mut self, variant: &str, leaf: usize) -> Result<(), String> {
        for tree in &mut self.trees {
            match tree.insert(variant, leaf) {
                Ok(()) => return Ok(()),
                Err(matchit::InsertError::Conflict { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let mut tree = matchit::Router::new();
        tree.insert(variant, leaf)
            .map_err(|error| error.to_string())?;
        self.trees.push(tree);
        Ok(())
    }
}

/// A path pattern of ours in the terms of the tree.
struct Pattern {
    /// The pattern with anonymous parameters.
    key: String,
    /// Everything that has to be inserted for it.
    variants: Vec<String>,
    kinds: Box<[Segment]>,
}

// === impl Pattern ===

impl Pattern {
    fn compile(pattern: &str) -> Result<Self, String> {
        if !pattern.starts_with('/') {
            return Err("a path starts with `/`".to_owned());
        }
        let (mut base, mut kinds) = (String::new(), Vec::new());
        let segments: Vec<&str> = pattern.split('/').skip(1).collect();
        let last = segments.len().saturating_sub(1);
        for (at, segment) in segments.iter().enumerate() {
            let (text, kind) = match *segment {
                "*" if at == last => {
                    kinds.push(Segment::Rest);
                    break;
                }
                "" if at != last => return Err("a path has no empty segment".to_owned()),
                _ if segment.starts_with('{') && segment.ends_with('}') && segment.len() > 2 => {
                    (format!("{{p{at}}}"), Segment::Parameter)
                }
                _ if segment.contains(['*', '{', '}']) => {
                    return Err(
                        "`*` stands alone at the end, `{name}` fills a whole segment".to_owned(),
                    );
                }
                fixed => (fixed.to_owned(), Segment::Fixed),
            };
            base.push('/');
            base.push_str(&text);
            kinds.push(kind);
        }
        let kinds: Box<[Segment]> = kinds.into();
        if kinds.last() != Some(&Segment::Rest) {
            return Ok(Self {
                key: base.clone(),
                variants: vec![base],
                kinds,
            });
        }
        let mut variants = vec![format!("{base}/{{*rest}}"), format!("{base}/")];
        if !base.is_empty() {
            variants.push(base.clone());
        }
        Ok(Self {
            key: format!("{base}/*"),
            variants,
            kinds,
        })
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
