//! What is looked at before anything in a folder is believed: whose it is, and who else may enter it.
//!
//! * The folder of a user's buses has a name that can be guessed, in a place that is everybody's: it must be this
//!   user's alone.
//! * What lies in a parent that everybody may write, without the sticky bit, may be exchanged by anybody at any time.
//! * A bus belongs to this user, or to another one who shares it with a group, if this user asked for that. Nobody
//!   outside of the group may enter it.

use crate::error::{Error, ErrorKind, Result};
use rustix::fs::{FileType, Stat};
use std::fmt::Display;
use std::path::Path;

const STICKY: u32 = 0o1000;

fn denied(text: String) -> Error {
    Error::new(ErrorKind::Permission, text)
}

fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Checks the folder of this user's buses.
pub fn own_root(path: &Path, found: &Stat) -> Result<()> {
    let refuse = |why: &dyn Display| {
        let path = path.display();
        denied(format!(
            "{path} is refused as the place of this user's buses: {why}; remove it, or set {} to \
             another directory",
            super::ROOT_VARIABLE
        ))
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {}
        FileType::Symlink => return Err(refuse(&"it is a symbolic link")),
        _ => return Err(refuse(&"it is not a directory")),
    }
    let (mode, user) = (found.st_mode & 0o7777, user());
    if found.st_uid != user {
        let why = format!("it belongs to user {}, and this is user {user}", found.st_uid);
        return Err(refuse(&why));
    }
    if mode & 0o077 != 0 {
        let why = format!("its mode is {mode:04o}, which lets other users in; 0700 does not");
        return Err(refuse(&why));
    }
    if mode & 0o700 != 0o700 {
        let why = format!("its mode is {mode:04o}, with which nobody can use it; 0700 is right");
        return Err(refuse(&why));
    }
    Ok(())
}

/// Checks the folder that a bus lies in.
pub fn parent(path: &Path, found: &Stat) -> Result<()> {
    let mode = found.st_mode & 0o7777;
    if mode & 0o002 != 0 && mode & STICKY == 0 {
        let path = path.display();
        return Err(denied(format!(
            "{path} is refused as the place of a bus: its mode is {mode:04o}, so everybody may \
             exchange what is in it; set its sticky bit (chmod +t {path}), or put the bus elsewhere"
        )));
    }
    Ok(())
}

/// Checks a bus. `shared`: whether this user asked to share one with a group.
pub fn bus(path: &Path, found: &Stat, shared: bool) -> Result<()> {
    let (path, mode, user) = (path.display(), found.st_mode & 0o7777, user());
    if mode & 0o007 != 0 {
        return Err(denied(format!(
            "bus {path} is refused: its mode is {mode:04o}, which lets everybody in; find out who \
             was there, and then chmod it to 0700, or remove it"
        )));
    }
    let owner = found.st_uid;
    if owner != user && mode & 0o070 == 0 {
        return Err(denied(format!(
            "bus {path} is refused: it belongs to user {owner} alone, and this is user {user}; \
             act as user {owner}, or let that user share a bus with a group (BusOptions::group)"
        )));
    }
    if owner != user && !shared {
        return Err(denied(format!(
            "bus {path} is refused: it belongs to user {owner}, and this is user {user}; if it is \
             meant to be shared, open it with BusOptions::group"
        )));
    }
    if mode & 0o700 != 0o700 {
        return Err(denied(format!(
            "bus {path} is refused: its mode is {mode:04o}, with which not even its owner can use \
             it; chmod it to 0700, or remove it"
        )));
    }
    Ok(())
}
