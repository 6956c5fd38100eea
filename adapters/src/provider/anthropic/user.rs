//! Whom a request is for, as Anthropic takes it.

use serde::Deserialize;

use super::Notes;
use super::native::Metadata;
use crate::adapter::EncodeError;
use crate::index::Index;
use crate::openai::text::Text;
use crate::request::Texts;

/// The longest `user_id` that Anthropic takes.
const LONGEST: usize = 512;

#[derive(Deserialize)]
struct Own<'a> {
    #[serde(borrow)]
    user_id: Option<Text<'a>>,
}

/// The user, as `user`, `safety_identifier` or Anthropic's own `metadata` tells it.
pub(super) fn metadata<'a>(fields: Texts<'a>, notes: &mut Notes) -> Result<Option<Metadata<'a>>, EncodeError> {
    let user = match text(fields, "user")? {
        Some(user) => Some(("user", user)),
        None => text(fields, "safety_identifier")?.map(|user| ("safety_identifier", user)),
    };
    let own = own(fields, notes)?;
    let Some((param, user)) = user.or_else(|| own.map(|user| ("metadata.user_id", user))) else {
        return Ok(None);
    };
    if let Some(why) = why_refused(&user) {
        notes.add(param, why);
        return Ok(None);
    }
    Ok(Some(Metadata { user_id: user.0 }))
}

fn text<'a>(fields: Texts<'a>, param: &str) -> Result<Option<Text<'a>>, EncodeError> {
    let invalid = |_| EncodeError::invalid(param, format!("`{param}` must be a string."));
    fields.get(param).map(|raw| serde_json::from_str(raw).map_err(invalid)).transpose()
}

/// Anthropic's metadata knows nothing but the user.
fn own<'a>(fields: Texts<'a>, notes: &mut Notes) -> Result<Option<Text<'a>>, EncodeError> {
    let Some(raw) = fields.get("metadata") else {
        return Ok(None);
    };
    let invalid = |_| EncodeError::invalid("metadata", "`metadata` must be an object of strings.");
    let Own { user_id } = serde_json::from_str(raw).map_err(invalid)?;
    let known = usize::from(user_id.is_some());
    if Index::of(raw.as_bytes()).is_ok_and(|index| index.fields().len() > known) {
        notes.add("metadata", "Anthropic takes nothing but a `user_id`");
    }
    Ok(user_id)
}

/// Anthropic wants an opaque id, and refuses what it takes for an e-mail address or a telephone number.
fn why_refused(user: &str) -> Option<&'static str> {
    let has_domain = user.split_once('@').is_some_and(|(_, domain)| domain.contains('.'));
    let digits = user.chars().filter(char::is_ascii_digit).count();
    let is_telephone = digits >= 7 && user.chars().all(|c| c.is_ascii_digit() || " +-()".contains(c));
    if has_domain || is_telephone {
        return Some("Anthropic refuses e-mail addresses and telephone numbers");
    }
    (user.len() > LONGEST).then_some("Anthropic takes no user longer than 512 characters")
}
