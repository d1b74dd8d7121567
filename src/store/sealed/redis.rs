//! Sealed records in Redis: one question each, their ends kept by Redis.

use super::super::redis::{Away, Redis};
use super::key::Sealed;
use super::{Life, SealedError, Version};
use crate::telemetry::metrics::StoreMetrics;
use redis::{RedisError, RedisResult, Script};
use std::sync::LazyLock;

static REPLACE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("replace.lua")));

impl From<Away> for SealedError {
    fn from(_: Away) -> Self {
        Self::Away
    }
}

pub(super) async fn get(
    redis: &Redis,
    metrics: &StoreMetrics,
    name: String,
) -> Result<Option<Sealed>, SealedError> {
    let ask = move |mut connection| async move {
        let mut get = redis::cmd("GET");
        let answer: RedisResult<Option<Vec<u8>>> = get.arg(name).query_async(&mut connection).await;
        match answer {
            // Somebody has put something else there. That says nothing of Redis.
            Err(error) if is_of_another_kind(&error) => Ok(Some(Vec::new())),
            answer => answer,
        }
    };
    match redis.call(metrics, ask).await? {
        None => Ok(None),
        Some(bytes) => Sealed::of(bytes).map(Some).ok_or(SealedError::Unreadable),
    }
}

pub(super) async fn put(
    redis: &Redis,
    metrics: &StoreMetrics,
    name: String,
    sealed: Sealed,
    life: Life,
) -> Result<(), SealedError> {
    let ask = move |mut connection| async move {
        let mut set = redis::cmd("SET");
        set.arg(name).arg(sealed.bytes());
        set.arg("PX").arg(life.milliseconds());
        set.query_async::<()>(&mut connection).await
    };
    Ok(redis.call(metrics, ask).await?)
}

pub(super) async fn replace(
    redis: &Redis,
    metrics: &StoreMetrics,
    name: String,
    seen: Version,
    sealed: Sealed,
    life: Life,
) -> Result<bool, SealedError> {
    let ask = move |mut connection| async move {
        let mut call = REPLACE.prepare_invoke();
        call.key(name).arg(&seen.0[..]).arg(sealed.bytes());
        call.arg(life.milliseconds());
        let done: RedisResult<bool> = call.invoke_async(&mut connection).await;
        match done {
            Err(error) if is_of_another_kind(&error) => Ok(false),
            done => done,
        }
    };
    Ok(redis.call(metrics, ask).await?)
}

pub(super) async fn remove(
    redis: &Redis,
    metrics: &StoreMetrics,
    name: String,
) -> Result<bool, SealedError> {
    let ask = move |mut connection| async move {
        let mut delete = redis::cmd("DEL");
        delete.arg(name).query_async::<bool>(&mut connection).await
    };
    Ok(redis.call(metrics, ask).await?)
}

fn is_of_another_kind(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}
