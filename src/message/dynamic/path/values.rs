//! The values of a field that lies behind lists: a walk through them, one value at a time.

use crate::error::Result;
use crate::message::FrameSegments;
use std::fmt;

use super::super::types::Scalar;
use super::super::wire::{Broken, Items, Object};
use super::super::{words_of, TRAVERSALS_MAX};
use super::{holder, selected, value_of, FieldPath, FieldValue, LeafKind};

/// The values of a field in one message; made by [`FieldPath::values`].
pub struct FieldValues<'a> {
    path: &'a FieldPath,
    /// The lists that are gone through, from the outermost.
    open: Vec<Open<'a>>,
    /// A value that is found and not given out yet.
    found: Option<FieldValue<'a>>,
    /// Words that may still be read: lists may share what they lead to, which multiplies.
    words: usize,
}

/// A list that is gone through.
struct Open<'a> {
    items: Items<'a>,
    next: u32,
    /// The step that it belongs to; as many as there are steps for the lists of the value itself.
    step: usize,
    /// How many lists its elements are in turn.
    lists: u8,
}

impl<'a> FieldValues<'a> {
    /// Begins at the root of a message.
    pub(super) fn begin(
        path: &'a FieldPath,
        segments: FrameSegments<'a>,
        payload: &[u8],
    ) -> Result<Self, Broken> {
        let words = words_of(payload) * TRAVERSALS_MAX;
        let mut values = Self { path, open: Vec::new(), found: None, words };
        values.descend(Object::root(segments)?, 0)?;
        Ok(values)
    }

    /// Counts what is read.
    fn charge(&mut self, words: usize) -> Result<(), Broken> {
        self.words = self.words.checked_sub(words).ok_or(Broken::Amplified)?;
        Ok(())
    }

    /// Goes down from a struct that is reached before step `step`: to a value, to a list, or to nothing.
    fn descend(&mut self, mut object: Object<'a>, mut step: usize) -> Result<(), Broken> {
        let path = self.path;
        while let Some(next) = path.steps.get(step) {
            if !selected(&next.members, &object) {
                return Ok(());
            }
            let held = holder(object, next.pointer, next.target.as_deref())?;
            let Some((holder, index)) = held else { return Ok(()) };
            if next.lists > 0 {
                return self.enter(holder, index, step, next.lists);
            }
            let Some(inner) = holder.object(index)? else { return Ok(()) };
            self.charge(inner.words())?;
            (object, step) = (inner, step + 1);
        }
        let leaf = &path.leaf;
        if leaf.lists == 0 {
            self.found = leaf.read(object)?;
            return Ok(());
        }
        if !selected(&leaf.members, &object) {
            return Ok(());
        }
        match holder(object, leaf.at as u16, leaf.target.as_deref())? {
            Some((holder, index)) => self.enter(holder, index, step, leaf.lists),
            None => Ok(()),
        }
    }

    /// Enters a list of `lists` levels, itself included.
    fn enter(
        &mut self,
        holder: Object<'a>,
        index: u16,
        step: usize,
        lists: u8,
    ) -> Result<(), Broken> {
        let Some(items) = holder.items(index)? else { return Ok(()) };
        self.charge(items.words())?;
        match self.path.leaf.of {
            _ if lists > 1 => items.check_pointers()?,
            _ if step < self.path.steps.len() => items.check_structs()?,
            LeafKind::Scalar(scalar) => items.check_scalar(scalar.bits())?,
            LeafKind::Text | LeafKind::Data => items.check_pointers()?,
        }
        self.open.push(Open { items, next: 0, step, lists: lists - 1 });
        Ok(())
    }

    /// Takes one element of the innermost list.
    fn advance(&mut self, index: u32) -> Result<(), Broken> {
        let Some(Open { items, step, lists, .. }) = self.open.last() else { return Ok(()) };
        let (items, step, lists) = (*items, *step, *lists);
        if lists > 0 {
            return self.enter(items.object(index)?, 0, step, lists);
        }
        if step < self.path.steps.len() {
            return self.descend(items.object(index)?, step + 1);
        }
        self.found = Some(match self.path.leaf.of {
            LeafKind::Scalar(Scalar::Bool) => FieldValue::Bool(items.bit(index)),
            LeafKind::Scalar(scalar) => value_of(scalar, scalar.read(&items.object(index)?, 0, 0)),
            LeafKind::Text => FieldValue::Text(items.object(index)?.text(0)?.unwrap_or_default()),
            LeafKind::Data => FieldValue::Data(items.object(index)?.bytes(0)?.unwrap_or_default()),
        });
        Ok(())
    }
}

impl<'a> Iterator for FieldValues<'a> {
    type Item = Result<FieldValue<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(value) = self.found.take() {
                return Some(Ok(value));
            }
            let open = self.open.last_mut()?;
            if open.next == open.items.len() {
                self.open.pop();
                continue;
            }
            let index = open.next;
            open.next += 1;
            if let Err(broken) = self.advance(index) {
                self.open.clear();
                return Some(Err(self.path.broken(broken)));
            }
        }
    }
}

impl fmt::Debug for FieldValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldValues").field("path", &self.path.name).finish_non_exhaustive()
    }
}
