//! How far a command has come, on a terminal and nowhere else.

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{bytes, count};

/// Messages between two looks at the screen, less one.
const EVERY: u64 = 0xff;

/// A bar for work on messages.
pub struct Progress {
    bar: ProgressBar,
    done: u64,
    bytes: u64,
}

impl Progress {
    /// Work on so many messages, if that is known.
    pub fn new(messages: Option<u64>) -> Self {
        let (bar, template) = match messages {
            Some(messages) => {
                (ProgressBar::new(messages), "{bar:40.cyan/dim} {percent:>3} %  {msg}")
            }
            None => (ProgressBar::new_spinner(), "{spinner:.cyan} {elapsed_precise}  {msg}"),
        };
        let style = ProgressStyle::with_template(template).expect("the template is correct");
        bar.set_style(style.progress_chars("━━─"));
        Self { bar, done: 0, bytes: 0 }
    }

    /// None, for what goes to a terminal itself.
    pub fn none() -> Self {
        Self { bar: ProgressBar::hidden(), done: 0, bytes: 0 }
    }

    /// One message more, of so many bytes.
    #[inline]
    pub fn message(&mut self, bytes: usize) {
        self.done += 1;
        self.bytes += bytes as u64;
        if self.done & EVERY == 0 {
            self.show();
        }
    }

    /// So many messages are done.
    pub fn at(&mut self, done: u64) {
        self.bar.set_position(done);
        self.bar.set_message(format!("{} messages", count(done)));
    }

    fn show(&self) {
        self.bar.set_position(self.done);
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{} messages, {}", count(self.done), bytes(self.bytes)));
        }
    }

    /// Says something above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| crate::output::complain(line));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
