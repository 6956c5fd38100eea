//! What gateways tell each other of cooldowns. This room writes notes and hears them; who carries them it does not
//! know.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Moment;
use crate::error::Cause;

/// So many notes wait to be carried; of what is more the other gateways find out by themselves.
const MOST_NOTES: usize = 1024;

/// What one gateway tells the others of one credential, or of one credential with one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is called in the registry.
    pub id: Arc<str>,
    /// Tells a credential from the one that had its id before.
    pub tag: u16,
    /// How it stands.
    pub word: Word,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It cools.
    Cools {
        /// When that ends.
        until: Moment,
        /// What it was.
        cause: Cause,
    },
    /// It answered before its cooldown was over.
    Well,
    /// An operator says that it is well.
    Reset,
}

/// Where notes wait for who carries them; nowhere where nobody does.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Option<mpsc::Sender<Note>>);

impl Outbox {
    /// One whose notes are carried.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Note>) {
        let (notes, waiting) = mpsc::channel(MOST_NOTES);
        (Self(Some(notes)), waiting)
    }

    pub(super) fn tell(&self, id: &Arc<str>, tag: u16, word: Word) {
        if let Some(notes) = &self.0 {
            // When there is no room for it, the others find out by themselves.
            let _no_room = notes.try_send(Note { id: Arc::clone(id), tag, word });
        }
    }
}
