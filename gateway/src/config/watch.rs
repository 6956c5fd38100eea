//! Tells when a configuration's files change. It looks at what they hold and not at what the system reports, so that
//! editors that replace a file, folders that are swapped by a symbolic link, and file systems without notices are all
//! one case; the notices only make it quick. Loading again is the caller's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest, Sha256};

use super::load::{list, providers_folder};
use crate::files;
use crate::vital;

/// An editor saves in several steps; a change counts when nothing has happened for so long.
const QUIET: Duration = Duration::from_millis(100);

/// A file that is written to without end is looked at all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it looks without a notice: the folder itself may have been replaced.
const POLL: Duration = Duration::from_secs(2);

/// Watches as long as it lives. A call under way when it goes still ends.
#[derive(Debug)]
pub struct WatchGuard {
    over: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // A full channel wakes it as well.
        let _: Result<(), TrySendError<()>> = self.wake.try_send(());
    }
}

/// Calls `on_change` from a thread of its own whenever the file, or a file of the folder, holds something else. Not when
/// it is gone: what serves, serves on. Not when it is written anew with the same text.
///
/// # Errors
/// The system gives no thread. Without notices of changes it still looks every two seconds.
pub fn watch(path: &Path, on_change: impl Fn() + Send + 'static) -> io::Result<WatchGuard> {
    let (wake, woken) = sync_channel(1);
    let over = Arc::new(AtomicBool::new(false));
    let mut watching = Watching::new(path, wake.clone(), Arc::clone(&over));
    vital::tireless("config-watch", move || watching.run(&woken, &on_change))?;
    Ok(WatchGuard { over, wake })
}

struct Watching {
    path: PathBuf,
    over: Arc<AtomicBool>,
    notices: Option<RecommendedWatcher>,
    /// The folders that notices come from.
    folders: Vec<PathBuf>,
    stamps: Vec<Stamp>,
    content: Option<[u8; 32]>,
}

/// What tells cheaply that a file may have changed.
type Stamp = (PathBuf, Option<std::time::SystemTime>, u64);

impl Watching {
    fn new(path: &Path, wake: SyncSender<()>, over: Arc<AtomicBool>) -> Self {
        let notices = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.as_ref().is_ok_and(is_reading) {
                return;
            }
            // One notice waiting is enough.
            let _: Result<(), TrySendError<()>> = wake.try_send(());
        });
        let path = path.to_owned();
        let mut watching = Self {
            content: content(&path),
            stamps: stamps(&path),
            path,
            over,
            notices: notices.ok(),
            folders: Vec::new(),
        };
        watching.follow();
        watching
    }

    fn run(&mut self, woken: &Receiver<()>, on_change: impl Fn()) {
        while !self.over.load(Ordering::Acquire) {
            let is_due = match woken.recv_timeout(POLL) {
                Ok(()) => settle(woken),
                Err(RecvTimeoutError::Timeout) => self.is_stamped_anew(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.follow();
            if is_due && self.is_changed() && !self.over.load(Ordering::Acquire) {
                on_change();
            }
        }
    }

    fn is_stamped_anew(&self) -> bool {
        stamps(&self.path) != self.stamps
    }

    fn is_changed(&mut self) -> bool {
        self.stamps = stamps(&self.path);
        let Some(content) = content(&self.path) else {
            return false;
        };
        self.content.replace(content) != Some(content)
    }

    /// Asks for notices from where the files are now.
    fn follow(&mut self) {
        let wanted = folders(&self.path);
        let Some(notices) = &mut self.notices else {
            return;
        };
        for folder in &self.folders {
            // A folder that is gone, or another of the same name, needs a new watch; an old one may be gone already.
            let _: notify::Result<()> = notices.unwatch(folder);
        }
        self.folders =
            wanted.into_iter().filter(|folder| notices.watch(folder, RecursiveMode::NonRecursive).is_ok()).collect();
    }
}

/// Our own looking is noticed too, and would never end.
fn is_reading(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
}

/// Waits until no notice has come for a moment.
fn settle(woken: &Receiver<()>) -> bool {
    let began = Instant::now();
    while woken.recv_timeout(QUIET).is_ok() && began.elapsed() < PATIENCE {}
    true
}

/// The folders in which a change can show: the file's own, that of what a link stands for, and that of the manifests.
fn folders(path: &Path) -> Vec<PathBuf> {
    let home = |path: &Path| match path.parent() {
        _ if path.is_dir() => path.to_owned(),
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let mut folders = vec![home(path), providers_folder(path)];
    folders.extend(fs::canonicalize(path).ok().map(|path| home(&path)));
    folders.extend(path.parent().map(Path::to_owned).filter(|parent| !parent.as_os_str().is_empty()));
    folders.sort();
    folders.dedup();
    folders.retain(|folder| folder.is_dir());
    folders
}

fn files(path: &Path) -> Option<Vec<PathBuf>> {
    let mut files = list(path).ok().filter(|files| !files.is_empty())?;
    files.extend(list(&providers_folder(path)).unwrap_or_default());
    Some(files)
}

fn stamps(path: &Path) -> Vec<Stamp> {
    let stamp = |file: PathBuf| {
        let meta = fs::metadata(&file).ok();
        let size = meta.as_ref().map_or(0, fs::Metadata::len);
        (file, meta.and_then(|meta| meta.modified().ok()), size)
    };
    files(path).unwrap_or_default().into_iter().map(stamp).collect()
}

/// The hash of all files with their names; `None` when one is not there, or is no file.
fn content(path: &Path) -> Option<[u8; 32]> {
    let mut sha = Sha256::new();
    for file in files(path)? {
        sha.update(file.as_os_str().as_encoded_bytes());
        sha.update([0]);
        let mut content = files::open(&file).ok()?;
        io::copy(&mut content, &mut sha).ok()?;
        sha.update([0]);
    }
    Some(sha.finalize().into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

    use std::os::unix::fs::symlink;

    use super::*;

    /// Far longer than any change takes to be seen; only a failure waits for it.
    const LONG: Duration = Duration::from_secs(20);

    struct Watched {
        folder: PathBuf,
        changes: Receiver<String>,
        _guard: WatchGuard,
    }

    /// Watches `file` in a new folder that `prepare` has filled; each change reports the file's text.
    fn watched(name: &str, file: &str, prepare: impl Fn(&Path)) -> Watched {
        let folder = std::env::temp_dir().join(format!("weir-watch-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        prepare(&folder);
        let (tell, changes) = sync_channel(100);
        let path = folder.join(file);
        let seen = path.clone();
        let guard = watch(&path, move || tell.send(fs::read_to_string(&seen).unwrap_or_default()).unwrap()).unwrap();
        Watched { folder, changes, _guard: guard }
    }

    impl Watched {
        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.join(name), text).unwrap();
        }

        /// Waits for the change to this text; no other may come before it.
        fn becomes(&self, text: &str) {
            assert_eq!(self.changes.recv_timeout(LONG).unwrap(), text);
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }

    #[test]
    fn a_file_that_is_written_to_is_seen_and_one_with_the_same_text_is_not() {
        let watched = watched("write", "weir.yaml", |folder| fs::write(folder.join("weir.yaml"), "1").unwrap());
        watched.write("weir.yaml", "2");
        watched.becomes("2");
        watched.write("weir.yaml", "2");
        watched.write("other.yaml", "x");
        watched.write("weir.yaml", "3");
        watched.becomes("3");
    }

    #[test]
    fn a_file_that_is_replaced_by_a_rename_is_seen_each_time() {
        let watched = watched("rename", "weir.yaml", |folder| fs::write(folder.join("weir.yaml"), "1").unwrap());
        for text in ["2", "3", "4"] {
            watched.write("weir.yaml.new", text);
            fs::rename(watched.folder.join("weir.yaml.new"), watched.folder.join("weir.yaml")).unwrap();
            watched.becomes(text);
        }
    }

    #[test]
    fn a_folder_that_is_swapped_by_a_link_is_seen() {
        let watched = watched("link", "weir.yaml", |folder| {
            for (version, text) in [("..v1", "1"), ("..v2", "2"), ("..v3", "3")] {
                fs::create_dir(folder.join(version)).unwrap();
                fs::write(folder.join(version).join("weir.yaml"), text).unwrap();
            }
            symlink("..v1", folder.join("..data")).unwrap();
            symlink("..data/weir.yaml", folder.join("weir.yaml")).unwrap();
        });
        for (version, text) in [("..v2", "2"), ("..v3", "3")] {
            symlink(version, watched.folder.join("..new")).unwrap();
            fs::rename(watched.folder.join("..new"), watched.folder.join("..data")).unwrap();
            watched.becomes(text);
        }
    }

    #[test]
    fn a_file_that_goes_and_comes_back_is_seen_when_it_is_back() {
        let watched = watched("back", "deep/weir.yaml", |folder| {
            fs::create_dir(folder.join("deep")).unwrap();
            fs::write(folder.join("deep/weir.yaml"), "1").unwrap();
        });
        fs::remove_file(watched.folder.join("deep/weir.yaml")).unwrap();
        watched.write("deep/weir.yaml", "2");
        watched.becomes("2");
        fs::remove_dir_all(watched.folder.join("deep")).unwrap();
        fs::create_dir(watched.folder.join("deep")).unwrap();
        watched.write("deep/weir.yaml", "3");
        watched.becomes("3");
        watched.write("deep/weir.yaml", "4");
        watched.becomes("4");
    }

    #[test]
    fn a_folder_of_files_and_its_manifests_are_seen() {
        let watched = watched("folder", "conf.d", |folder| {
            fs::create_dir_all(folder.join("conf.d/providers")).unwrap();
            fs::write(folder.join("conf.d/a.yaml"), "1").unwrap();
        });
        watched.write("conf.d/b.yaml", "2");
        watched.becomes("");
        watched.write("conf.d/providers/p.yaml", "3");
        watched.becomes("");
        fs::remove_file(watched.folder.join("conf.d/b.yaml")).unwrap();
        watched.becomes("");
    }

    #[test]
    fn after_the_guard_is_gone_the_thread_ends() {
        let folder = std::env::temp_dir();
        let (alive, ended) = sync_channel::<()>(1);
        let guard = watch(&folder.join("weir-none.yaml"), move || drop(alive.clone())).unwrap();
        drop(guard);
        assert_eq!(ended.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }
}
