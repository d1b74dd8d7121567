//! Makes what the runs need of an issuer: a key, its JWKS and discovery document, and files of signed tokens.
//!
//! ```text
//! DIR/issuer/.well-known/openid-configuration   DIR/issuer/jwks.json   DIR/public.pem
//! DIR/known.txt   DIR/rotation.txt   DIR/unseen.txt   DIR/expired.txt      one token a line
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::Parser;
use serde_json::json;

/// How long the tokens are good, in seconds: a day, as the real issuer's.
const LIFETIME: u64 = 24 * 60 * 60;

#[derive(Parser)]
struct Args {
    /// Where the files go.
    #[arg(long)]
    dir: PathBuf,
    /// The issuer: its URL with a slash at the end, exactly as it stands in `iss`.
    #[arg(long)]
    issuer: String,
    /// The `aud` of the tokens.
    #[arg(long)]
    audience: String,
    /// How many tokens the rotation has.
    #[arg(long)]
    rotation: usize,
    /// How many tokens are made that no proxy sees twice.
    #[arg(long)]
    unseen: usize,
}

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone)]
struct Signer {
    key: Arc<KeyPair>,
    issuer: String,
    audience: String,
    issued_at: u64,
}

// === impl Signer ===

impl Signer {
    /// A machine token with the claims that Bonterra Auth puts in; `id` makes it unlike any other.
    fn token(&self, id: &str) -> Result<String, Failure> {
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": "bench"});
        let claims = json!({
            "iss": self.issuer,
            "sub": format!("{id}@clients"),
            "aud": self.audience,
            "iat": self.issued_at,
            "exp": self.issued_at + LIFETIME,
            "azp": id,
            "gty": "client-credentials",
            "scope": "read:grants write:grants",
            "urn:bonterra:claims:bonterra_auth_id": format!("auth0|{id}"),
            "urn:bonterra:claims:is_bonterra_grants": true,
        });
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            token.as_bytes(),
            &mut signature,
        )?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    fn tokens(
        &self,
        prefix: &str,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<String>, Failure> {
        numbers
            .map(|n| self.token(&format!("{prefix}{n:09}")))
            .collect()
    }

    fn jwks(&self) -> Result<serde_json::Value, Failure> {
        let public = self.key.public_key();
        let encode = |number: &[u8]| URL_SAFE_NO_PAD.encode(number);
        Ok(json!({"keys": [{
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": "bench",
            "n": encode(public.modulus().big_endian_without_leading_zero()),
            "e": encode(public.exponent().big_endian_without_leading_zero()),
        }]}))
    }

    fn pem(&self) -> Result<String, Failure> {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der()?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(String::from_utf8_lossy)
            .collect();
        Ok(format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        ))
    }
}

/// Signs `count` tokens on all cores and writes them in order.
fn write_tokens(signer: &Signer, path: PathBuf, prefix: &str, count: usize) -> Result<(), Failure> {
    let threads = thread::available_parallelism()?.get();
    let share = count.div_ceil(threads);
    let parts = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|i| (i * share).min(count)..((i + 1) * share).min(count))
            .map(|numbers| scope.spawn(|| signer.tokens(prefix, numbers)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| "a signing thread panicked")?)
            .collect::<Result<Vec<_>, Failure>>()
    })?;
    let mut file = BufWriter::new(File::create(path)?);
    for token in parts.iter().flatten() {
        writeln!(file, "{token}")?;
    }
    Ok(file.flush()?)
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let issuer_dir = args.dir.join("issuer");
    fs::create_dir_all(issuer_dir.join(".well-known"))?;

    let signer = Signer {
        key: Arc::new(KeyPair::generate(KeySize::Rsa2048)?),
        issuer: args.issuer,
        audience: args.audience,
        issued_at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let url = &signer.issuer;
    let discovery = json!({
        "issuer": url,
        "jwks_uri": format!("{url}jwks.json"),
        "token_endpoint": format!("{url}oauth/token"),
        "authorization_endpoint": format!("{url}authorize"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    });
    fs::write(
        issuer_dir.join(".well-known/openid-configuration"),
        discovery.to_string(),
    )?;
    fs::write(issuer_dir.join("jwks.json"), signer.jwks()?.to_string())?;
    fs::write(args.dir.join("public.pem"), signer.pem()?)?;

    let outdated = Signer {
        issued_at: signer.issued_at - 2 * LIFETIME,
        ..signer.clone()
    };
    write_tokens(&outdated, args.dir.join("expired.txt"), "expired", 1)?;
    write_tokens(&signer, args.dir.join("known.txt"), "known", 1)?;
    write_tokens(
        &signer,
        args.dir.join("rotation.txt"),
        "rotation",
        args.rotation,
    )?;
    write_tokens(&signer, args.dir.join("unseen.txt"), "unseen", args.unseen)
}
