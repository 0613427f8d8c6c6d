//! A topic that a command publishes on.

use std::time::Duration;

use anyhow::{Context, Result};
use windlass::{Append, Bus, Policy, PublishError, Publisher, Raw, Topic};

use super::interrupt;
use super::target::tell_of_losses;
use crate::output;

/// How long to wait for room at a time, so that Ctrl-C is heard.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits in a row after which it is said whom for.
const WAITS_BEFORE_SAYING: u32 = 20;

/// A topic, and its publisher.
pub struct Outlet {
    topic: Topic<Raw>,
    publisher: Publisher<Raw>,
    is_durable: bool,
    said: bool,
    /// Messages published.
    pub messages: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
}

impl Outlet {
    /// Opens a topic, or makes it, for messages of this schema.
    pub fn open(bus: &Bus, name: &str, schema: Option<Vec<u8>>) -> Result<Self> {
        let topic = bus.topic::<Raw>(name).with_schema(schema).open()?;
        if let Ok(log) = topic.log() {
            tell_of_losses(log.path(), topic.recovery());
        }
        let (publisher, is_durable) = (topic.publisher()?, topic.info()?.policy == Policy::Durable);
        Ok(Self { topic, publisher, is_durable, said: false, messages: 0, payload_bytes: 0 })
    }

    /// Subscribers that live.
    pub fn subscribers(&self) -> Result<usize> {
        let info = self.topic.info()?;
        Ok(info.subscribers.iter().filter(|subscriber| subscriber.alive).count())
    }

    /// Publishes a message, with its key and its time if the topic is durable, and waits for room. False if Ctrl-C came
    /// first.
    pub fn publish(&mut self, payload: &[u8], key: &[u8], time_ns: Option<u64>) -> Result<bool> {
        for wait in 0.. {
            match self.try_publish(payload, key, time_ns) {
                Ok(()) => break,
                Err(PublishError::Full { .. }) if interrupt::came() => return Ok(false),
                Err(error @ PublishError::Full { .. }) => {
                    if wait == WAITS_BEFORE_SAYING && !self.said {
                        self.said = true;
                        let topic = self.topic.name();
                        output::complain(&format!("windlass: waiting: topic {topic}: {error}"));
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("topic {}", self.topic.name()))
                }
            }
        }
        self.messages += 1;
        self.payload_bytes += payload.len() as u64;
        Ok(true)
    }

    fn try_publish(
        &mut self,
        payload: &[u8],
        key: &[u8],
        time_ns: Option<u64>,
    ) -> Result<(), PublishError> {
        if !self.is_durable {
            return self.publisher.publish_timeout(payload, LOOK_EVERY).map(drop);
        }
        let append = match time_ns {
            Some(time_ns) => Append::new().key(key).time_ns(time_ns),
            None => Append::new().key(key),
        };
        self.publisher.append(payload, &append).map(drop)
    }
}
