//! Lists that are told page by page, in the order of their ids.

use schemars::JsonSchema;
use serde::Deserialize;

/// How many a page has if nobody says.
const PAGE: usize = 100;

/// How many it has at most: each key may have several.
const MOST_PAGE: usize = 1_000;

/// Which of a list are asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Whose, its keys' too.
    pub(super) tenant: Option<String>,
    limit: Option<usize>,
    /// The last id of the page before.
    after: Option<String>,
}

impl Asked {
    /// Whether what has this id comes behind the page before.
    pub(super) fn is_behind(&self, id: &str) -> bool {
        self.after.as_deref().is_none_or(|after| id > after)
    }

    /// Whether it is of the tenant that is asked for.
    pub(super) fn is_of(&self, tenant: &str) -> bool {
        self.tenant.as_deref().is_none_or(|asked| asked == tenant)
    }

    /// The page of these rows, and the id of its last one where there are more.
    pub(super) fn page<R>(&self, rows: impl Iterator<Item = R>, id: impl Fn(&R) -> &str) -> (Vec<R>, Option<String>) {
        let limit = self.limit.unwrap_or(PAGE).clamp(1, MOST_PAGE);
        let mut page: Vec<R> = rows.take(limit + 1).collect();
        let is_last = page.len() <= limit;
        page.truncate(limit);
        let next = page.last().filter(|_| !is_last).map(|row| id(row).to_owned());
        (page, next)
    }
}
