//! The books of one subscriber: what came, against what had to come.
//!
//! Sequences are dense in a lane, and the numbers of an author are dense among its messages, which
//! all lie in one lane. So each message says what the next one must be:
//!
//! * the same author: number and sequence have grown by the same amount;
//! * another author: it began with number 0, somewhere behind the message before;
//! * on a reliable topic nothing is left out, on a lossy one exactly what the bus said was missed.
//!
//! On an ordered topic the sequence of the topic itself is dense, and what was missed is exact from
//! one message to the next. On one that is not ordered a miss is of some lane that the bus does not
//! name: it waits in `pending` until that lane goes on.

use windlass::RecvError;

use super::record::{Author, Record};

/// Where a newcomer may begin in a lane.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For one that asked for the latest: what was committed before it asked is not for it.
    pub least: u64,
    /// What was not even tried when it had its place is.
    pub most: u64,
}

/// Where a subscriber begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// It was there before the first message.
    AtBirth,
    /// It joined later, in each lane within its bounds.
    Later,
    /// It joined later, somewhere.
    Somewhere,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Whether it is known where this subscriber began.
    begun: bool,
    /// The sequence after the last one that came.
    next: u64,
    /// Whose the last one was.
    author: Option<Author>,
    /// Its number among those of its author.
    number: u64,
}

/// The books.
pub struct Ledger {
    cell: usize,
    lossy: bool,
    ordered: bool,
    begins: Begins,
    bounds: Vec<Bounds>,
    lanes: Vec<Lane>,
    /// On an ordered topic: the sequence that is due.
    place: Option<u64>,
    received: u64,
    missed: u64,
    /// Missed messages that no gap accounts for yet.
    pending: u64,
    /// Of these, how many may lie before the first message of a lane, where nobody sees a gap.
    unsure: u64,
}

impl Ledger {
    /// Empty books. `bounds` are those of each lane.
    pub fn new(
        cell: usize,
        (lossy, ordered): (bool, bool),
        begins: Begins,
        bounds: Vec<Bounds>,
    ) -> Self {
        let at_birth = begins == Begins::AtBirth;
        let lanes = vec![Lane { begun: at_birth, ..Lane::default() }; bounds.len()];
        let place = (at_birth && ordered).then_some(0);
        Self {
            cell,
            lossy,
            ordered,
            begins,
            bounds,
            lanes,
            place,
            received: 0,
            missed: 0,
            pending: 0,
            unsure: 0,
        }
    }

    /// Messages received.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Messages missed.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// On an ordered topic: the first message must be this one.
    pub fn expect_place(&mut self, sequence: u64) {
        self.place = Some(sequence);
    }

    /// Whether it is known of every lane where this subscriber began, as far as anything can be.
    pub fn knows_all_lanes(&self) -> bool {
        self.begins != Begins::Somewhere || self.lanes.iter().all(|lane| lane.begun)
    }

    /// Where this subscriber stands, summed over the lanes: at least and at most. A lane that
    /// nothing came from yet was begun somewhere within its bounds.
    pub fn position(&self) -> (u64, u64) {
        let lanes = self.lanes.iter().zip(&self.bounds);
        lanes.fold((0, 0), |(least, most), (lane, bounds)| match lane.begun {
            true => (least + lane.next, most + lane.next),
            false => (least + bounds.least, most + bounds.most),
        })
    }

    /// Enters a message that was delivered from `lane` as `sequence`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong.
    pub fn take(&mut self, record: &Record, lane: u32, sequence: u64) -> Result<(), String> {
        self.received += 1;
        let Record { cell, lane_sequence, author, number, .. } = *record;
        if cell as usize != self.cell || record.lane != lane || lane as usize >= self.lanes.len() {
            return Err(format!("{record:?} was delivered from lane {lane} of cell {}", self.cell));
        }
        if self.ordered {
            self.take_place(sequence, record)?;
        } else if sequence != lane_sequence {
            return Err(format!("{record:?} was delivered as message {sequence}"));
        }
        let seen = self.lanes[lane as usize];
        self.lanes[lane as usize] =
            Lane { begun: true, next: lane_sequence + 1, author: Some(author), number };
        if !seen.begun {
            return self.begin(lane, lane_sequence);
        }
        let due = seen.next;
        if lane_sequence < due {
            return Err(format!(
                "message {lane_sequence} of lane {lane} ({author}) came again or too late, {due} \
                 was due"
            ));
        }
        let gap = lane_sequence - due;
        if gap > 0 {
            self.account_for(lane, due, gap)?;
        }
        let right = match seen.author {
            Some(before) if before == author => number == seen.number + gap + 1,
            Some(_) => number <= gap,
            // Nobody wrote in this lane before.
            None => number <= lane_sequence,
        };
        if !right {
            return Err(format!(
                "message {lane_sequence} of lane {lane} has number {number} of {author}, behind \
                 number {} of {} and {gap} missed",
                seen.number,
                seen.author.map_or("nobody".to_owned(), |author| author.to_string()),
            ));
        }
        Ok(())
    }

    fn take_place(&mut self, sequence: u64, record: &Record) -> Result<(), String> {
        match self.place.replace(sequence + 1) {
            Some(due) if due != sequence => {
                Err(format!("place {sequence} of the order came ({record:?}), place {due} was due"))
            }
            _ => Ok(()),
        }
    }

    /// The first message of a lane for a subscriber that came later.
    fn begin(&mut self, lane: u32, sequence: u64) -> Result<(), String> {
        self.unsure = self.unsure.max(self.pending);
        if self.begins != Begins::Later {
            return Ok(());
        }
        let Bounds { least, most } = self.bounds[lane as usize];
        // What was missed before the first message makes it a later one.
        if sequence < least || (sequence > most && self.missed == 0) {
            return Err(format!(
                "a newcomer began with message {sequence} of lane {lane}, expected {least} to \
                 {most}"
            ));
        }
        Ok(())
    }

    /// Messages of a lane were left out.
    fn account_for(&mut self, lane: u32, due: u64, gap: u64) -> Result<(), String> {
        if !self.lossy {
            return Err(format!("messages {due} to {} of lane {lane} are lost", due + gap - 1));
        }
        if self.ordered {
            // The places of the order account for every message.
            return Ok(());
        }
        if gap > self.pending {
            let told = self.pending;
            return Err(format!(
                "{gap} messages from {due} of lane {lane} were left out, {told} reported as missed"
            ));
        }
        self.pending -= gap;
        Ok(())
    }

    /// The bus said that messages were missed.
    ///
    /// # Errors
    ///
    /// A sentence if none may be on this topic.
    pub fn lagged(&mut self, missed: u64) -> Result<(), String> {
        if !self.lossy {
            let error = RecvError::Lagged { missed };
            return Err(format!("a subscriber of a reliable topic was told: {error}"));
        }
        if missed == 0 {
            return Err("a subscriber was told that it missed nothing".to_owned());
        }
        self.missed += missed;
        if self.ordered {
            self.place = self.place.map(|place| place + missed);
        } else {
            self.pending += missed;
        }
        Ok(())
    }

    /// Everything is read: the books must come to exactly what was published in each lane.
    pub fn settle(&self, published: &[u64]) -> Vec<String> {
        let mut faults = Vec::new();
        for (lane, (books, &published)) in self.lanes.iter().zip(published).enumerate() {
            let next = books.next;
            if books.begun && next != published {
                faults.push(format!("lane {lane} was read to {next} of {published}"));
            }
            // What was not even tried when it had its place is for it, from the first message on.
            let most = self.bounds.get(lane).map_or(u64::MAX, |bounds| bounds.most);
            if !books.begun && self.missed == 0 && published > most {
                faults.push(format!(
                    "nothing came of lane {lane}, which has {published} messages, those from \
                     {most} on published after this subscriber had joined"
                ));
            }
        }
        let total: u64 = published.iter().sum();
        if self.place.is_some_and(|place| place != total) {
            faults.push(format!("the order was read to {:?} of {total}", self.place));
        }
        if self.pending > self.unsure {
            let (pending, unsure) = (self.pending, self.unsure);
            faults.push(format!(
                "{pending} more messages were reported as missed than were left out, of which \
                 {unsure} may lie before the beginning"
            ));
        }
        let (received, missed) = (self.received, self.missed);
        if self.begins == Begins::AtBirth && received + missed != total {
            faults.push(format!("{received} received and {missed} missed of {total} published"));
        }
        faults
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
