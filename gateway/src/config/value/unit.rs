//! Numbers with a unit, as people write them, without a float in between.

/// The leading number of `400k` and what follows it.
pub(super) fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// `1.5` times `unit` as a whole number; `None` when it is no number, too large or not whole.
pub(super) fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(rest)) {
        return None;
    }
    let rest = rest.trim_end_matches('0');
    let denominator = 10_u128.checked_pow(u32::try_from(rest.len()).ok()?)?;
    let numerator = format!("{whole}{rest}").parse::<u128>().ok()?.checked_mul(u128::from(unit))?;
    if !numerator.is_multiple_of(denominator) {
        return None;
    }
    u64::try_from(numerator / denominator).ok()
}
