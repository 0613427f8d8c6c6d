//! Where the log of a durable topic is: the path that it was created with, noted in the folder of the topic.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::limits::HEADER_BYTES;
use crate::shm::home::Folder;
use crate::shm::loss::Loss;
use crate::shm::map::{self, Access};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const NAME: &str = "site";
const PATH_BYTES_MAX: u64 = 4096;

/// Names the folder of the logs of buses that are opened by name.
pub const LOGS_VARIABLE: &str = "WINDLASS_LOGS";

/// Notes `path` in the folder of a topic.
pub fn write(folder: &Folder, path: &Path, identity: u64, mode: u32) -> Result<()> {
    let text = path.as_os_str().as_bytes();
    let len = text.len() as u64;
    let bytes =
        (HEADER_BYTES as u64 + len + END_BYTES as u64).next_multiple_of(HEADER_BYTES as u64);
    let mut fields = [0; FIELDS];
    fields[0] = len;
    let file = folder.create_file_atomically(NAME, bytes, mode, |region| {
        Header { kind: Kind::Site, file_bytes: bytes, identity, fields }.write(region);
        Ok(())
    })?;
    let written = file.write_all_at(text, HEADER_BYTES as u64);
    written.map_err(|error| Error::io(format!("cannot write {folder}/{NAME}"), error))
}

/// The path that was noted in the folder of topic `identity`.
pub fn read(folder: &Folder, identity: u64) -> Result<PathBuf> {
    let what = format!("{folder}/{NAME}");
    let file = folder.open_file(NAME, Access::Read)?;
    let len = file.metadata().map_err(|error| Error::io(&what, error))?.len();
    let most = HEADER_BYTES as u64 * 3;
    if len > most {
        return Err(Error::corrupt(what, "its length", len, format!("at most {most}")));
    }
    let region = map::map(&file, &what, Access::Read, len, &Loss::default())?;
    let header = Header::read(&region, Kind::Site, &what)?;
    let path_bytes = header.fields[0];
    if header.identity != identity {
        return Err(Error::corrupt(
            what,
            "the topic that it belongs to",
            "another one",
            "this one",
        ));
    }
    if path_bytes == 0 || path_bytes > PATH_BYTES_MAX.min(len.saturating_sub(HEADER_BYTES as u64)) {
        return Err(Error::corrupt(what, "the length of its path", path_bytes, "that of a path"));
    }
    let mut path = vec![0; path_bytes as usize];
    let read = file.read_exact_at(&mut path, HEADER_BYTES as u64);
    read.map_err(|error| Error::io(format!("cannot read {what}"), error))?;
    Ok(PathBuf::from(OsString::from_vec(path)))
}

/// What the folder of the logs of a bus is called: a bus that was opened by name has that name, any other one its whole
/// path, so that no two have the same.
fn name_of(bus: &Path) -> String {
    let own = format!("/dev/shm/windlass-{}", nix::unistd::geteuid());
    match bus.strip_prefix(&own) {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => {
            bus.to_string_lossy().trim_start_matches('/').replace('%', "%25").replace('/', "%")
        }
    }
}

/// Where the log of `topic` is unless somebody says otherwise.
///
/// # Errors
///
/// `Invalid` for a bus in the memory of one process.
pub fn default(bus: &Folder, topic: &str) -> Result<PathBuf> {
    let Folder::Directory(directory) = bus else {
        let text = format!(
            "topic {topic} belongs to a bus in the memory of this process, which has no place for \
             its log; say where, with durable_at(path)"
        );
        return Err(Error::new(ErrorKind::Invalid, text));
    };
    let name = name_of(directory.path());
    if let Some(logs) = std::env::var_os(LOGS_VARIABLE).filter(|logs| !logs.is_empty()) {
        return Ok(PathBuf::from(logs).join(name).join(format!("{topic}.log")));
    }
    if !directory.path().starts_with("/dev/shm") {
        return Ok(directory.path().join(format!("{topic}.log")));
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|path| Path::new(path).is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let data = data.map(PathBuf::from).or_else(home).ok_or_else(|| {
        let text = format!(
            "there is no place for the log of topic {topic}: neither {LOGS_VARIABLE}, nor \
             XDG_DATA_HOME, nor HOME is set; set one, or say where, with durable_at(path)"
        );
        Error::new(ErrorKind::Invalid, text)
    })?;
    Ok(data.join("windlass").join(name).join(format!("{topic}.log")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_buses_have_logs_in_one_place() {
        let own = format!("/dev/shm/windlass-{}/market", nix::unistd::geteuid());
        let buses =
            [&own[..], "/dev/shm/market", "/dev/shm/a/bus", "/dev/shm/a%bus", "/dev/shm/b/bus"];
        let names: std::collections::BTreeSet<_> =
            buses.iter().map(|bus| name_of(Path::new(bus))).collect();
        assert_eq!(names.len(), buses.len(), "{names:?}");
        assert!(names.contains("market"));
    }
}
