//! Weir: an OpenAI-compatible gateway to language models.
//!
//! [`exchange`] is the file to read first: one request from its first byte to its last. It knows the order of the other
//! rooms: [`access`] (who calls), [`model`] (what for, and where it can go), [`bill`] (what it takes of limits and
//! budgets), [`params`] (what the model makes of its parameters), [`search`] (the model's targets in turn, by
//! [`balance`] and [`retry`]), [`attempt`] (one target asked), [`relay`] (the answer), and [`record`] (settled, logged
//! and counted). [`ledger`] keeps a row of each in the [`store`]. Requests come and go by [`net`], the only room that
//! names Pingora; [`config`] reads what was written; [`serve`] starts the process. `docs/architecture.md` names every
//! room.

pub mod access;
pub mod access_log;
pub mod address;
pub mod admin;
pub mod alerts;
pub mod attempt;
pub mod balance;
pub mod bill;
pub mod budget;
pub mod cli;
pub mod config;
pub mod either;
pub mod error;
pub mod exchange;
pub mod explain;
pub mod files;
pub mod gateway;
pub mod headers;
pub mod hedge;
pub mod ledger;
pub mod limit;
pub mod listing;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod net;
pub mod params;
pub mod price;
pub mod reasons;
pub mod record;
pub mod redis;
pub mod relay;
pub mod reload;
pub mod retry;
pub mod route;
pub mod search;
pub mod serve;
pub mod sharing;
pub mod shelf;
pub mod store;
pub mod succession;
pub mod timer;
pub mod turn;
pub mod vital;
