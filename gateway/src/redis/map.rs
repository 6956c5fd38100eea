//! A backend of the store in Redis: the keys in a sorted set, by which they are in order, and the values in a hash,
//! both in one slot of a cluster. A batch is one transaction; there are no scripts.

use std::sync::Arc;

use redis::Pipeline;

use crate::redis::line::Line;
use crate::store::StoreFault;
use crate::store::backend::{Backend, Batch, Direction, Pair, Span};

/// An ordered map in Redis.
#[derive(Clone, Debug)]
pub(super) struct Map {
    line: Arc<Line>,
    keys: String,
    values: String,
}

impl Map {
    /// The map of this name, which is empty if nobody wrote it.
    pub(super) fn new(line: Arc<Line>, name: &str) -> Self {
        Self { line, keys: format!("weir:{{{name}}}:keys"), values: format!("weir:{{{name}}}:values") }
    }

    /// The map is forgotten in so many seconds unless this is said again.
    pub(super) fn last(&self, seconds: i64) -> Result<(), StoreFault> {
        let mut pipeline = Pipeline::new();
        pipeline.expire(&self.keys, seconds).ignore().expire(&self.values, seconds).ignore();
        self.line.ask(&pipeline)
    }

    fn keys(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Vec<u8>>, StoreFault> {
        let (from, to) = (bound(b'[', &span.from), bound(b'(', &span.to));
        let (command, first, last) = match direction {
            Direction::Up => ("ZRANGEBYLEX", from, to),
            Direction::Down => ("ZREVRANGEBYLEX", to, from),
        };
        // Redis counts with signed numbers; no answer is as long as that.
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut pipeline = Pipeline::new();
        pipeline.cmd(command).arg(&self.keys).arg(first).arg(last).arg("LIMIT").arg(0).arg(limit);
        let (keys,) = self.line.ask(&pipeline)?;
        Ok(keys)
    }

    fn values(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreFault> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HMGET").arg(&self.values).arg(keys);
        let (values,) = self.line.ask(&pipeline)?;
        Ok(values)
    }
}

impl Backend for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        let mut pipeline = Pipeline::new();
        pipeline.hget(&self.values, key);
        let (value,) = self.line.ask(&pipeline)?;
        Ok(value)
    }

    fn range(&self, span: &Span, direction: Direction, limit: usize) -> Result<Vec<Pair>, StoreFault> {
        let mut span = span.clone();
        while !span.is_empty() && limit > 0 {
            let keys = self.keys(&span, direction, limit)?;
            let Some(last) = keys.last() else { break };
            span = match direction {
                Direction::Up => span.after(last),
                Direction::Down => span.before(last),
            };
            let values = self.values(&keys)?;
            let pairs: Vec<_> = keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect();
            // All of them may have been taken away in between, and there may be more behind.
            if !pairs.is_empty() {
                return Ok(pairs);
            }
        }
        Ok(Vec::new())
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreFault> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        for (key, value) in &batch.changes {
            match value {
                Some(value) => {
                    pipeline.hset(&self.values, key, value).ignore().zadd(&self.keys, key, 0).ignore();
                }
                None => {
                    pipeline.hdel(&self.values, key).ignore().zrem(&self.keys, key).ignore();
                }
            }
        }
        self.line.transact(pipeline)
    }

    /// How safe it is then is up to Redis.
    fn flush(&self) -> Result<(), StoreFault> {
        Ok(())
    }
}

fn bound(kind: u8, key: &[u8]) -> Vec<u8> {
    [&[kind], key].concat()
}
