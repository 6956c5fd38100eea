//! The ledger's rows beside what the provider says that it served, request by request.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use simulator::{Served, Simulator};

use crate::callers::{Asked, Heard};
use crate::nodes::{Budget, COMMITTED, INPUT, Kill, OUTPUT, nanos};

/// All that is known of what happened.
pub(crate) struct Books {
    rows: HashMap<String, Value>,
    served: HashMap<String, Vec<Served>>,
    /// All tokens by the provider's own sum.
    provider: u64,
    used: i64,
    reserved: i64,
}

/// Input and output tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tokens {
    input: u64,
    output: u64,
}

impl Tokens {
    fn of_row(row: &Value) -> Self {
        let count = |name: &str| row["usage"][name].as_u64().unwrap();
        Self { input: count("input_tokens"), output: count("output_tokens") }
    }

    fn of_served(served: &[Served]) -> Self {
        let sum = |of: fn(&Served) -> u64| served.iter().map(of).sum();
        Self { input: sum(|one| one.input_tokens), output: sum(|one| one.output_tokens) }
    }

    /// What the attempts of a request used that did not answer.
    fn given_up(row: &Value) -> Self {
        let attempts = row["attempts"].as_array().unwrap();
        let sum = |name: &str| attempts.iter().filter_map(|attempt| attempt["spent"][name].as_u64()).sum();
        Self { input: sum("input_tokens"), output: sum("output_tokens") }
    }

    /// The most that its output is estimated at by its length: to the provider a token is a word, to an estimate four
    /// bytes.
    fn most_told(self) -> u64 {
        const LONGEST_WORD: &str = " something";
        (self.output * LONGEST_WORD.len() as u64).div_ceil(4)
    }

    fn without(self, other: Self) -> Self {
        Self { input: self.input - other.input, output: self.output - other.output }
    }

    fn all(self) -> u64 {
        self.input + self.output
    }

    fn nanos(self) -> i64 {
        1_000 * (i64::try_from(self.input).unwrap() * INPUT + i64::try_from(self.output).unwrap() * OUTPUT)
    }
}

impl Books {
    pub(crate) fn new(told: Vec<Value>, simulator: &Simulator) -> Self {
        let mut rows = HashMap::new();
        for row in told {
            let twice = rows.insert(row["request_id"].as_str().unwrap().to_owned(), row);
            assert_eq!(twice, None, "a row is told twice");
        }
        let mut served: HashMap<_, Vec<_>> = HashMap::new();
        for one in simulator.served() {
            served.entry(one.name.clone()).or_default().push(one);
        }
        let account = simulator.account();
        Self { rows, served, provider: account.input_tokens + account.output_tokens, used: 0, reserved: 0 }
    }

    /// What a gateway's counters say.
    pub(crate) fn add(&mut self, budget: Budget) {
        self.used += budget.used;
        self.reserved += budget.reserved;
    }

    fn served(&self, asked: &Asked) -> &[Served] {
        self.served.get(&asked.id).map_or(&[], Vec::as_slice)
    }

    /// Whether a request that was under way at a kill has a row. One that says that it is exact is; one that was made
    /// from what was noted of it tells the input of what had been sent, and is charged for that.
    pub(crate) fn tells_of(&self, asked: &Asked) -> bool {
        let row = self.rows.get(&asked.id);
        if let Some(row) = row.filter(|row| row["accuracy"] == "exact") {
            self.assert_exact(asked, row);
        }
        if let Some(row) = row.filter(|row| is_recovered(row)) {
            let told = Tokens::of_row(row);
            assert_eq!(told, Tokens::given_up(row), "{row}");
            assert_eq!(nanos(&row["cost_usd"]).unwrap_or_default(), told.nanos(), "{row}");
            let is_told = told.input > 0 || self.served(asked).is_empty();
            assert!(is_told || row["attempts"] == json!([]), "an attempt that was sent costs nothing: {row}");
        }
        row.is_some()
    }

    /// A request has its row, and that says what the provider says.
    pub(crate) fn assert_tells_of(&self, asked: &Asked) {
        let served = self.served(asked);
        let Some(row) = self.rows.get(&asked.id) else {
            assert!(asked.heard == Heard::Nothing && served.is_empty(), "{asked:?} has no row; {served:?}");
            return;
        };
        if let Heard::Refused(status) = asked.heard {
            assert_eq!(row["status"], status, "{row}");
        }
        let (told, real) = (Tokens::of_row(row), Tokens::of_served(served));
        let given_up = Tokens::given_up(row);
        match row["accuracy"].as_str().unwrap() {
            "exact" => return self.assert_exact(asked, row),
            // The input was counted, and as much of the answer as had come.
            "partial" => assert!(told.input == real.input && told.output <= real.most_told(), "{row}, {served:?}"),
            // The whole input, by the gateway's own count.
            "estimated" => assert!(told.input > 0, "{row}, {served:?}"),
            other => assert_eq!(other, "exact"),
        }
        if !asked.was_cut() {
            // Some attempt was given up, which the row tells of it; the rest of it is what the provider says of the
            // other.
            assert!(given_up.input > 0, "{asked:?} was neither cut nor given up, but is not exact: {row}");
            let answered: Vec<_> = served.iter().filter(|one| row["upstream_model"] == one.model).cloned().collect();
            assert_eq!(told.without(given_up), Tokens::of_served(&answered), "{row}, {served:?}");
        }
        assert_eq!(nanos(&row["cost_usd"]), Some(told.nanos()), "{row}");
    }

    fn assert_exact(&self, asked: &Asked, row: &Value) {
        let (told, served) = (Tokens::of_row(row), self.served(asked));
        assert_eq!(Tokens::given_up(row), Tokens::default(), "{row}");
        assert_eq!(told, Tokens::of_served(served), "{row}, {served:?}, {asked:?}");
        assert_eq!(nanos(&row["cost_usd"]).unwrap_or_default(), told.nanos(), "{row}");
    }

    /// A request without a row was not under way for so long before the kill that a commit must have noted it.
    pub(crate) fn assert_may_be_lost(&self, asked: &Asked, kill: Kill) {
        let noted = |one: &&Served| kill.from.saturating_duration_since(one.began) > COMMITTED;
        let old = self.served(asked).iter().find(noted);
        assert!(old.is_none(), "{asked:?} was under way for long at {kill:?}, but has no row: {old:?}");
    }

    /// The counters are the sum of the rows; and what the provider told of single requests is all that it served.
    pub(crate) fn assert_add_up(&self) {
        let rows: i64 = self.rows.values().filter_map(|row| nanos(&row["cost_usd"])).sum();
        assert_eq!((self.used, self.reserved), (rows, 0), "nano-dollars in the counters, and still reserved");
        let singly: u64 = self.served.values().map(|served| Tokens::of_served(served).all()).sum();
        assert_eq!(singly, self.provider, "tokens that the provider served");
    }

    pub(crate) fn figures(&self, asked: &[Asked]) -> String {
        let mut text = String::new();
        let heard = |wanted: fn(&Heard) -> bool| asked.iter().filter(|one| wanted(&one.heard)).count();
        let (whole, refused) =
            (heard(|heard| *heard == Heard::Whole), heard(|heard| matches!(heard, Heard::Refused(_))));
        let cut = asked.len() - whole - refused;
        writeln!(text, "{} requests: {whole} answered whole, {refused} refused, {cut} cut", asked.len()).unwrap();
        for accuracy in ["exact", "partial", "estimated"] {
            let rows: Vec<_> = self.rows.values().filter(|row| row["accuracy"] == accuracy).collect();
            let ledger: u64 = rows.iter().map(|row| Tokens::of_row(row).all()).sum();
            let of_row = |row: &&Value| self.served.get(row["request_id"].as_str().unwrap());
            let provider: u64 = rows.iter().filter_map(of_row).map(|served| Tokens::of_served(served).all()).sum();
            let count = rows.len();
            writeln!(text, "{count} rows {accuracy}: {ledger} tokens in the ledger, {provider} at the provider")
                .unwrap();
        }
        write!(text, "{} nano-dollars in rows and counters, {} still reserved", self.used, self.reserved).unwrap();
        text
    }

    /// Requests that were under way at a kill, one a line, and what the provider served of them.
    pub(crate) fn named(&self, caught: &[&Asked], lost: &[&Asked]) -> String {
        let mut text = String::new();
        let (mut recovered, mut told, mut served_to) = (0, 0, 0);
        for one in caught {
            let row = &self.rows[&one.id];
            if is_recovered(row) {
                recovered += 1;
                told += Tokens::of_row(row).all();
                served_to += Tokens::of_served(self.served(one)).all();
            }
        }
        let mut unknown = 0;
        for one in lost {
            let served = Tokens::of_served(self.served(one));
            unknown += served.all();
            writeln!(
                text,
                "  {} ({:?}, heard {:?}) has no row; the provider served {served:?}",
                one.id, one.deed, one.heard
            )
            .unwrap();
        }
        let ended = caught.len() - recovered;
        let lost = lost.len();
        let recovered = format!("{recovered} have a recovered row, with {told} tokens of {served_to} that were served");
        write!(text, "{ended} had ended in time, {recovered}; {lost} have none, {unknown} tokens were served").unwrap();
        text
    }
}

/// Whether a row was made from what was noted of its request.
fn is_recovered(row: &Value) -> bool {
    row["error"] == "gateway_fault" && row["status"].is_null()
}
