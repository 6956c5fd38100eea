//! The ledgers of all gateways as one: this process's own, and the copies of the others'. They are read page by page,
//! so that memory is bounded. Rows that are damaged are passed over, and the log says so; what cannot be read of the
//! others is missing, and [`Volumes::is_complete`] says so.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::books::{self, PAGE, ROWS};
use super::fleet::{Member, Others, State};
use super::query::{Cursor, Field, Filter, MOST_COMMITS, Place, Sums};
use super::{Row, frame};
use crate::budget::lease::NodeId;
use crate::store::backend::{Direction, Span};
use crate::store::{Disk, StoreFault, format};

/// The ledgers.
#[derive(Debug)]
pub struct Volumes {
    own: Volume,
    others: Vec<Volume>,
    complete: bool,
}

/// One ledger.
#[derive(Clone, Debug)]
struct Volume {
    node: NodeId,
    disk: Arc<Disk>,
}

impl Member {
    /// Its ledger, if this program can read it.
    pub(super) fn read(&self) -> Result<Disk, StoreFault> {
        format::known(&*self.backend)?;
        Ok(Disk::reading(Arc::clone(&self.backend)))
    }
}

impl State {
    /// An error while something may be missing.
    pub(super) fn whole(self) -> Result<(), StoreFault> {
        match self {
            Self::Whole => Ok(()),
            Self::Filling => Err(StoreFault::Unreached("it is told anew what it held".to_owned())),
        }
    }
}

impl Volumes {
    pub(super) fn of(disk: Arc<Disk>, node: NodeId) -> Self {
        Self { own: Volume { node, disk }, others: Vec::new(), complete: true }
    }

    /// Adds what others wrote.
    pub(super) fn join(&mut self, others: Result<Others, StoreFault>) {
        let Ok(others) = others else {
            self.complete = false;
            return;
        };
        self.complete &= others.state == State::Whole;
        for member in others.members {
            self.complete &= member.state == State::Whole;
            match member.read() {
                Ok(disk) => self.others.push(Volume { node: member.node, disk: Arc::new(disk) }),
                Err(_) => self.complete = false,
            }
        }
    }

    /// Whether all that all gateways have committed was there to be read so far, but for what came within the last
    /// moment.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Gives `each` at most `limit` rows, the newest first, from `cursor` on; returns where to go on if there may be
    /// more.
    ///
    /// # Errors
    /// This process's store cannot be read.
    pub fn rows(
        &mut self,
        filter: &Filter,
        cursor: Option<Cursor>,
        limit: usize,
        mut each: impl FnMut(&Row<'_>),
    ) -> Result<Option<Cursor>, StoreFault> {
        let mut merged = Merged::new(self, filter, cursor);
        let (mut left, mut commits) = (limit, MOST_COMMITS);
        while let Some((place, value)) = merged.next()? {
            let Some(rest) = commits.checked_sub(1) else { return Ok(Some(Cursor { place, passed: 0 })) };
            commits = rest;
            let skip = cursor.filter(|cursor| cursor.place == place).map_or(0, |cursor| cursor.passed);
            let gone = newest_first(&value, skip, |passed, row| {
                if !filter.takes(row, place.number) {
                    return ControlFlow::Continue(());
                }
                let Some(rest) = left.checked_sub(1) else { return ControlFlow::Break(Cursor { place, passed }) };
                left = rest;
                each(row);
                ControlFlow::Continue(())
            });
            match gone {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(cursor)) => return Ok(Some(cursor)),
                Err(error) => passed_over(&error),
            }
        }
        Ok(None)
    }

    /// Sums of the rows by these fields.
    ///
    /// # Errors
    /// This process's store cannot be read.
    pub fn sums(&mut self, filter: &Filter, by: &[Field]) -> Result<Sums, StoreFault> {
        let mut sums = Sums::default();
        let mut add = |disk: &Disk| {
            commits(disk, filter.span(), Direction::Up, |number, value| {
                for frame in frame::decode(value)? {
                    let row = frame.row()?;
                    if filter.takes(&row, number) {
                        sums.add(&row, by.iter().map(|field| field.of(&row, number).into_owned()).collect());
                    }
                }
                Ok(ControlFlow::<()>::Continue(()))
            })
        };
        add(&self.own.disk)?;
        for other in &self.others {
            self.complete &= add(&other.disk).is_ok();
        }
        Ok(sums)
    }
}

/// Gives `each` the rows of one commit but the newest `skip`.
fn newest_first<B>(
    value: &[u8],
    skip: usize,
    mut each: impl FnMut(usize, &Row<'_>) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, StoreFault> {
    let frames: Vec<_> = frame::decode(value)?.collect();
    for (passed, frame) in frames.iter().rev().enumerate().skip(skip) {
        let row = frame.row()?;
        if let ControlFlow::Break(with) = each(passed, &row) {
            return Ok(ControlFlow::Break(with));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The commits of several ledgers, the newest first.
struct Merged<'a> {
    own: Volume,
    pages: Vec<Page>,
    /// How many commits of each are read at a time.
    size: usize,
    complete: &'a mut bool,
}

/// What is read of one ledger.
struct Page {
    volume: Volume,
    rest: Span,
    read: VecDeque<(u64, Vec<u8>)>,
    ended: bool,
}

impl<'a> Merged<'a> {
    fn new(volumes: &'a mut Volumes, filter: &Filter, cursor: Option<Cursor>) -> Self {
        let own = volumes.own.clone();
        let all: Vec<_> = std::iter::once(&volumes.own).chain(&volumes.others).cloned().collect();
        // Of many ledgers little is in memory of each.
        let size = (PAGE / all.len()).max(1);
        let pages = all.into_iter().map(|volume| Page::new(volume, filter.span(), cursor)).collect();
        Self { own, pages, size, complete: &mut volumes.complete }
    }

    fn next(&mut self) -> Result<Option<(Place, Vec<u8>)>, StoreFault> {
        for page in &mut self.pages {
            if let Err(error) = page.fill(self.size) {
                if page.volume.node == self.own.node {
                    return Err(error);
                }
                *self.complete = false;
                page.ended = true;
            }
        }
        let newest = self.pages.iter_mut().filter(|page| !page.read.is_empty()).max_by_key(|page| page.place());
        Ok(newest.and_then(|page| {
            page.read.pop_front().map(|(number, value)| (Place { number, node: page.volume.node }, value))
        }))
    }
}

impl Page {
    fn new(volume: Volume, mut rest: Span, cursor: Option<Cursor>) -> Self {
        if let Some(Cursor { place, .. }) = cursor {
            // Of those of one number the highest node comes first.
            let behind = if volume.node <= place.node { place.number.saturating_add(1) } else { place.number };
            rest.to = rest.to.min(books::key(ROWS, behind));
        }
        Self { volume, rest, read: VecDeque::new(), ended: false }
    }

    fn place(&self) -> Option<Place> {
        self.read.front().map(|(number, _)| Place { number: *number, node: self.volume.node })
    }

    /// Reads on if all that was read is taken.
    fn fill(&mut self, size: usize) -> Result<(), StoreFault> {
        while self.read.is_empty() && !self.ended {
            let page = self.volume.disk.readable(&self.rest, Direction::Down, size)?;
            match page.last() {
                Some((last, _)) => self.rest.to.clone_from(last),
                None => self.ended = true,
            }
            for (key, value) in page {
                match value {
                    Ok(value) => self.read.push_back((books::number_of(&key), value)),
                    Err(error) => passed_over(&error),
                }
            }
        }
        Ok(())
    }
}

/// Gives `visit` each commit of `span` in one ledger until it breaks off. What is damaged is passed over.
pub(super) fn commits<B>(
    disk: &Disk,
    mut span: Span,
    direction: Direction,
    mut visit: impl FnMut(u64, &[u8]) -> Result<ControlFlow<B>, StoreFault>,
) -> Result<Option<B>, StoreFault> {
    loop {
        let page = disk.readable(&span, direction, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        span = match direction {
            Direction::Up => span.after(last),
            Direction::Down => span.before(last),
        };
        for (key, value) in page {
            match value.and_then(|value| visit(books::number_of(&key), &value)) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(with)) => return Ok(Some(with)),
                Err(error) => passed_over(&error),
            }
        }
    }
}

fn passed_over(error: &StoreFault) {
    tracing::error!(%error, "rows of the ledger cannot be read and are passed over");
}
