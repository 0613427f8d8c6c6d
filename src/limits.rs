//! Every bound of windlass, with the reason for its value.

/// Bytes of a header page: the static part of every shared file, so that data begins on a page.
pub const HEADER_BYTES: usize = 4096;

/// Words that different processes write are this far apart: two cache lines, because the adjacent-line prefetcher
/// of current processors moves lines in pairs.
pub const LINE: usize = if cfg!(windlass_loom) { 40 } else { 128 };

/// Smallest segment: a page. A smaller one would roll more often than it carries messages.
pub const SEGMENT_BYTES_MIN: u64 = 4096;

/// Largest segment: the length of a frame is 32 bits wide, and a segment is reserved as a whole.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Default segment: eight of them fit the last-level cache of a small machine.
pub const SEGMENT_BYTES_DEFAULT: u64 = 1 << 20;

/// Fewest segments of a lane: one that is written while another is read.
pub const SEGMENTS_MIN: u32 = 2;

/// Most segments of a lane: the mapping table must fit the header page of the lane.
pub const SEGMENTS_MAX: u32 = 256;

/// Default number of segments of a lane.
pub const SEGMENTS_DEFAULT: u32 = 8;

/// Most publishers of a topic: the lane number of an order entry is seven bits wide; 64 keeps the gates of a
/// subscriber in a few cache lines.
pub const PUBLISHERS_MAX: u32 = 64;

/// Default number of publishers that a topic has room for.
pub const PUBLISHERS_DEFAULT: u32 = 8;

/// Most subscribers of a topic: a publisher scans them once per segment.
pub const SUBSCRIBERS_MAX: u32 = 1024;

/// Default number of subscribers that a topic has room for.
pub const SUBSCRIBERS_DEFAULT: u32 = 64;

/// Fewest slots of an order log: every publisher may hold one message that is not yet appended.
pub const ORDER_SLOTS_MIN: u64 = 256;

/// Most slots of an order log: one gibibyte of them.
pub const ORDER_SLOTS_MAX: u64 = 1 << 27;

/// Default number of slots of an order log: one mebibyte.
pub const ORDER_SLOTS_DEFAULT: u64 = 1 << 17;

/// Largest segment of a log: the numbers of the records of one segment must fit the 24 bits that a record has for them,
/// however small they are.
pub const LOG_SEGMENT_BYTES_MAX: u64 = 1 << 28;

/// Default segment of a log: few files, and a recovery that looks at little.
pub const LOG_SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Places of a piece of the order of a log: a mebibyte of them; in a model two.
pub const PLACES: u64 = if cfg!(windlass_loom) { 2 } else { 1 << 17 };

/// Largest control file. A larger one means options that nobody meant.
pub const CONTROL_BYTES_MAX: u64 = 256 << 20;

/// Largest schema that a topic stores.
pub const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Nodes that a bus has room for.
pub const NODES_MAX: usize = 1024;

/// A sleeper looks again after this long, whatever happened to the process that should have woken it.
pub const SLEEP_MS_MAX: u64 = 50;

/// Bytes that a publisher zeroes at a time ahead of its position. Enough that the lines are owned when they are
/// written, little enough that the message that pays for it is not much later than the others.
pub const CLEAN_AHEAD_BYTES: usize = if cfg!(windlass_loom) { 8 } else { 1024 };

/// Messages after which a subscriber publishes its cursor even if it stays in the segment.
pub const CURSOR_EVERY: u32 = 64;

/// Most bits of a token of a ring: at least 16 are left to tell laps apart; in a model two, the fewest that do.
pub const TOKEN_BITS_MAX: u32 = if cfg!(windlass_loom) { 61 } else { 47 };

/// Default number of bits of a token of a ring: 31 are left to tell laps apart.
pub const TOKEN_BITS_DEFAULT: u32 = 32;

/// Default number of tokens that a ring holds: two pages of them.
pub const TOKENS_DEFAULT: u64 = 1024;

/// Most tokens that a ring holds: half a gibibyte of them.
pub const TOKENS_MAX: u64 = 1 << 26;

/// Most sizes of chunks of a queue.
pub const CLASSES_MAX: usize = 4;

/// Sizes of chunks are multiples of this, so that no two share a line of the cache.
pub const CHUNK_ALIGN: usize = 64;

/// Largest chunk: the length of a payload is reserved as a whole.
pub const CHUNK_BYTES_MAX: u32 = 1 << 30;

/// Most chunks of a queue: whoever repairs looks at each of them.
pub const CHUNKS_MAX: u32 = 1 << 20;

/// Most bytes of all chunks of a queue.
pub const QUEUE_BYTES_MAX: u64 = 1 << 40;

/// Most consumers of a queue: a producer that wakes looks at each of them.
pub const CONSUMERS_MAX: u32 = 1024;

/// Default number of consumers that a queue has room for.
pub const CONSUMERS_DEFAULT: u32 = 64;

/// Default number of chunks of a queue.
pub const CHUNKS_DEFAULT: u32 = 1024;

/// Default size of a chunk: a page of small jobs would fit four.
pub const CHUNK_BYTES_DEFAULT: u32 = 1024;

/// Default number of deliveries before a message counts as dead.
pub const DELIVERIES_DEFAULT: u32 = 5;

/// A message that was entered so long ago, and is ready without an entry, gets one from whoever looks: who made it
/// ready is stopped in between, or dead. Far longer than anybody needs who is not.
pub const STALLED_MS: u32 = 1000;

/// Most clients of a service, and most servers: whoever repairs looks at the calls of each client, and a client that
/// wakes servers at each of them.
pub const CLIENTS_MAX: u32 = 1024;

/// Most servers of a service.
pub const SERVERS_MAX: u32 = 1024;

/// Default number of clients that a service has room for.
pub const CLIENTS_DEFAULT: u32 = 32;

/// Default number of servers that a service has room for.
pub const SERVERS_DEFAULT: u32 = 32;

/// Most calls that a client may have at a time: it keeps account of them in the bits of one word.
pub const CALLS_MAX: u32 = 64;

/// Default number of calls that a client may have at a time.
pub const CALLS_DEFAULT: u32 = 16;

/// Most responses of a stream that a server may be ahead of its caller: the headers of all of them are looked at when
/// a server died.
pub const AHEAD_MAX: u32 = 64;

/// Default number of responses that a server may be ahead.
pub const AHEAD_DEFAULT: u32 = 4;

/// Default size of a request and of a response.
pub const CALL_BYTES_DEFAULT: u32 = 1024;

/// Whoever waits, and now and then whoever takes, looks after this long for what the dead left and for what is due.
pub const ROUND_MS: u64 = 5;

/// Smallest ring of a channel: a page.
pub const CHANNEL_BYTES_MIN: u64 = 4096;

/// Largest ring of a channel: the length of a frame is 30 bits wide, and the ring is reserved as a whole.
pub const CHANNEL_BYTES_MAX: u64 = 1 << 30;

/// Default ring of a channel: it stays in the cache that belongs to a core.
pub const CHANNEL_BYTES_DEFAULT: u64 = 1 << 18;

const _: () = assert!(HEADER_BYTES as u64 <= SEGMENT_BYTES_MIN);
const _: () = assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
const _: () = assert!(LOG_SEGMENT_BYTES_MAX / (24) < 1 << 24);
const _: () = assert!(PUBLISHERS_MAX <= 127);
const _: () = assert!(ORDER_SLOTS_MIN >= 2 * PUBLISHERS_MAX as u64);
const _: () = assert!(SEGMENTS_MAX as usize * 8 + 1024 <= HEADER_BYTES);
