//! From a file, a folder or a text to a configuration that has no fault.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::check::{Findings, NO_MASTER_KEY, Subject, check, is_master_key};
use super::fault::{Fault, Faults, Place};
use super::file::Config;
use super::preset::{Manifest, Manifests};
use super::read::{Found, Read, Reader};
use super::tree::{Flaw, Mark, Node, Value, merge, parse};
use super::value::Secret;
use crate::files;

/// All files together; 100,000 keys and 10,000 models take 17 MB.
const LARGEST: u64 = 64 << 20;

/// No folder of a configuration has more files.
const MOST_FILES: usize = 1_000;

/// A configuration without a fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<Fault>,
    /// What it says and this version does not do yet.
    pub pending: Vec<Fault>,
    /// The SHA-256 of its text in hexadecimal. Gateways with the same files have the same.
    pub hash: String,
    /// The providers that are known by name: the built-in ones, and those of the folder `providers` beside it.
    pub manifests: Manifests,
    /// Where it came from, for the next time.
    pub origin: Origin,
    secrets: Vec<(Place, String, Secret)>,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// This file or folder.
    Path(PathBuf),
    /// The binary, with the environment's keys.
    Quickstart,
    /// A text.
    Text,
}

impl Origin {
    /// Loads it again; a text is gone, so it has no fault and changes nothing. A pipe that nobody writes into would hold up
    /// this reload and all that follow, so none is read again.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn load(&self) -> Result<Option<Loaded>, Faults> {
        match self {
            Self::Path(path) if path.exists() && !path.is_dir() && !path.is_file() => {
                let mut faults = Faults::default();
                faults.push(unplaced(format!("{} is no regular file, so it cannot be read again", path.display())));
                Err(faults)
            }
            Self::Path(path) => load(path).map(Some),
            Self::Quickstart => quickstart().map(Some),
            Self::Text => Ok(None),
        }
    }
}

impl Loaded {
    /// Fetches every `env:` and `file:` secret, and opens every certificate: what a strict check finds missing.
    #[must_use]
    pub fn missing(&self) -> Vec<Fault> {
        let secrets = self.secrets.iter().filter_map(|(place, path, secret)| {
            let error = secret.resolve().err()?;
            Some(Fault { place: Some(place.clone()), path: path.clone(), message: error.to_string(), help: None })
        });
        secrets.chain(self.missing_files()).chain(self.bad_master_key()).collect()
    }

    fn missing_files(&self) -> Vec<Fault> {
        let server = &self.config.server;
        let own = server.listen.0.iter().chain(&server.admin).filter_map(|listener| listener.tls.as_ref());
        let tls = own.chain(&server.tls).flat_map(|tls| [("server.tls", &tls.cert), ("server.tls", &tls.key)]);
        let authorities =
            self.config.providers.values().filter_map(|provider| Some(("providers", provider.ca.as_ref()?)));
        let unreadable = |(path, file): (&str, &PathBuf)| {
            let error = files::open(file).err()?;
            Some(Fault { path: path.to_owned(), ..unplaced(format!("{} cannot be read: {error}", file.display())) })
        };
        tls.chain(authorities).filter_map(unreadable).collect()
    }

    fn bad_master_key(&self) -> Option<Fault> {
        let key = self.config.store.master_key.as_ref()?.resolve().ok()?;
        let fault = Fault { path: "store.master_key".to_owned(), ..unplaced(NO_MASTER_KEY.to_owned()) };
        (!is_master_key(&key)).then_some(fault)
    }
}

/// A text and the name of its file.
#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: String,
}

/// Loads a file, or the `.yaml` and `.yml` files of a folder in the order of their names.
///
/// # Errors
/// Every fault of all files, with its place.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let sources = read_all(path, &mut faults);
    let manifests = read_all_if_there(&providers_folder(path), &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let loaded = understand(&sources, &manifests)?;
    Ok(Loaded { origin: Origin::Path(path.to_owned()), ..loaded })
}

/// The built-in quickstart. `OPENAI_API_KEY` and `ANTHROPIC_API_KEY` in the environment bring in the real providers.
///
/// # Errors
/// None, as the tests show; the type is that of every loading.
pub fn quickstart() -> Result<Loaded, Faults> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    quickstart_with(is_set("OPENAI_API_KEY"), is_set("ANTHROPIC_API_KEY"))
}

/// The quickstart with these real providers.
pub(super) fn quickstart_with(openai: bool, anthropic: bool) -> Result<Loaded, Faults> {
    let parts = [
        (true, "quickstart.yaml", include_str!("../../../config/quickstart.yaml")),
        (openai, "quickstart.openai.yaml", include_str!("../../../config/quickstart.openai.yaml")),
        (anthropic, "quickstart.anthropic.yaml", include_str!("../../../config/quickstart.anthropic.yaml")),
    ];
    let wanted = parts.into_iter().filter(|(wanted, ..)| *wanted);
    let sources: Vec<_> =
        wanted.map(|(_, name, text)| Source { name: name.to_owned(), text: text.to_owned() }).collect();
    let loaded = understand(&sources, &[])?;
    // That a real provider replaces its simulation is meant.
    Ok(Loaded { origin: Origin::Quickstart, warnings: Vec::new(), ..loaded })
}

/// Reads a configuration from a text. Pure: no file, no environment, only the clock for dates that have passed.
///
/// # Errors
/// Every fault, with its place.
pub fn parse_str(name: &str, text: &str) -> Result<Loaded, Faults> {
    understand(&[Source { name: name.to_owned(), text: text.to_owned() }], &[])
}

/// For fuzzing: any bytes are a configuration or faults, never a panic.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse_str("fuzz", &text) {
        Ok(loaded) => drop(serde_json::to_string(&loaded.config)),
        Err(faults) => drop(faults.to_string()),
    }
}

/// The folder with manifests of further providers: `providers` in the folder, or beside the file.
#[must_use]
pub fn providers_folder(path: &Path) -> PathBuf {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or_else(|| Path::new("")) };
    folder.join("providers")
}

fn read_all_if_there(folder: &Path, faults: &mut Faults) -> Vec<Source> {
    if folder.is_dir() && list(folder).is_ok_and(|files| !files.is_empty()) {
        read_all(folder, faults)
    } else {
        Vec::new()
    }
}

fn read_all(path: &Path, faults: &mut Faults) -> Vec<Source> {
    let files = match list(path) {
        Ok(files) if files.is_empty() => {
            faults.push(unplaced(format!("{} has no .yaml file", path.display())));
            return Vec::new();
        }
        Ok(files) => files,
        Err(error) => {
            faults.push(unplaced(format!("{} cannot be read: {error}", path.display())));
            return Vec::new();
        }
    };
    let mut left = LARGEST;
    files.iter().filter_map(|file| read_one(file, &mut left).map_err(|fault| faults.push(fault)).ok()).collect()
}

/// The file itself, or the files of the folder by name; hidden ones are not meant, and folders in it neither.
pub(super) fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if is_yaml(&file) && file.is_file() {
            files.push(file);
        }
        if files.len() > MOST_FILES {
            return Err(io::Error::other(format!("it has more than {MOST_FILES} files")));
        }
    }
    files.sort();
    Ok(files)
}

fn is_yaml(file: &Path) -> bool {
    let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn read_one(path: &Path, left: &mut u64) -> Result<Source, Fault> {
    let name = path.display().to_string();
    let failed = |error: io::Error| unplaced(format!("{name} cannot be read: {error}"));
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(*left + 1).read_to_end(&mut bytes)).map_err(failed)?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    *left = left
        .checked_sub(size)
        .ok_or_else(|| unplaced(format!("{name}: the configuration is over {} MiB", LARGEST >> 20)))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(error) => Err(not_text(name, error.as_bytes(), error.utf8_error().valid_up_to())),
    }
}

fn not_text(file: String, bytes: &[u8], at: usize) -> Fault {
    let before = String::from_utf8_lossy(bytes.get(..at).unwrap_or_default());
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = number(before.matches('\n').count() + 1);
    let column = number(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let place = Some(Place { file, line, column });
    Fault { place, path: String::new(), message: "this is not UTF-8".to_owned(), help: None }
}

fn unplaced(message: String) -> Fault {
    Fault { place: None, path: String::new(), message, help: None }
}

fn understand(sources: &[Source], more_providers: &[Source]) -> Result<Loaded, Faults> {
    let manifests = known_providers(more_providers)?;
    let mut findings = Findings::default();
    let Some(root) = join(sources, &mut findings) else {
        return Err(name_all(findings, sources));
    };
    let mut reader = Reader::default();
    let config = Config::read(&root, &mut reader);
    let secrets = std::mem::take(&mut reader.secrets);
    findings.faults.append(&mut reader.faults);
    findings.more += reader.more;
    let subject = Subject {
        config: &config,
        manifests: &manifests,
        root: &root,
        now: SystemTime::now(),
        suspect: reader.suspect,
    };
    let findings = check(subject, findings);
    if !findings.faults.is_empty() {
        return Err(name_all(findings, sources));
    }
    let warnings = name_warnings(findings.warnings, sources);
    let pending = name_warnings(findings.pending, sources);
    let secrets = secrets.into_iter().map(|(mark, path, secret)| (place(mark, sources), path, secret)).collect();
    Ok(Loaded {
        config,
        warnings,
        pending,
        hash: hash(sources.iter().chain(more_providers)),
        manifests,
        origin: Origin::Text,
        secrets,
    })
}

/// One tree of all files; `None` when one of them could not be read to its end.
fn join<'t>(sources: &'t [Source], findings: &mut Findings) -> Option<Node<'t>> {
    let mut root = Node { mark: Mark { file: 0, line: 1, column: 1 }, value: Value::Map(Vec::new()) };
    let mut whole = true;
    for (i, source) in sources.iter().enumerate() {
        let parsed = parse(u32::try_from(i).unwrap_or(u32::MAX), &source.text);
        findings.faults.extend(parsed.flaws.into_iter().map(flaw));
        match parsed.root {
            Some(node) => add(&mut root, node, findings, sources),
            None => whole = false,
        }
    }
    whole.then_some(root)
}

fn add<'t>(root: &mut Node<'t>, node: Node<'t>, findings: &mut Findings, sources: &[Source]) {
    if !matches!(node.value, Value::Map(_)) && !node.is_null() {
        let message = format!("a configuration is a map, and this is {}", node.kind());
        findings.faults.push(Found { mark: node.mark, path: String::new(), message, help: None });
        return;
    }
    let mut replaced = Vec::new();
    merge(root, node, "", &mut replaced);
    findings.warnings.extend(replaced.into_iter().map(|replaced| {
        let message = format!("this replaces the value at {}", place(replaced.old, sources));
        Found { mark: replaced.new, path: replaced.path, message, help: None }
    }));
}

fn flaw(flaw: Flaw) -> Found {
    Found { mark: flaw.mark, path: flaw.path, message: flaw.message, help: flaw.help }
}

/// The built-in manifests and those of the folder.
fn known_providers(sources: &[Source]) -> Result<Manifests, Faults> {
    let mut manifests = Manifests::built_in().clone();
    let mut findings = Findings::default();
    for (i, source) in sources.iter().enumerate() {
        let parsed = parse(u32::try_from(i).unwrap_or(u32::MAX), &source.text);
        findings.faults.extend(parsed.flaws.into_iter().map(flaw));
        let Some(root) = parsed.root else { continue };
        let mut reader = Reader::default();
        let manifest = Manifest::read(&root, &mut reader);
        findings.faults.append(&mut reader.faults);
        if !manifest.kind.is_empty() && !Manifests::is_dialect(&manifest.kind) {
            let message = format!("there is no dialect `{}`", manifest.kind);
            findings.faults.push(Found { mark: root.mark, path: "kind".to_owned(), message, help: None });
        }
        let name = Path::new(&source.name).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        manifests.add(name.unwrap_or_default(), manifest);
    }
    if findings.faults.is_empty() { Ok(manifests) } else { Err(name_all(findings, sources)) }
}

fn name_all(findings: Findings, sources: &[Source]) -> Faults {
    let mut found = findings.faults;
    found.sort_by_key(|found| (found.mark.file, found.mark.line, found.mark.column));
    let mut faults = Faults::default();
    found.into_iter().for_each(|found| faults.push(name(found, sources)));
    faults.more += findings.more;
    faults
}

fn name_warnings(mut warnings: Vec<Found>, sources: &[Source]) -> Vec<Fault> {
    warnings.sort_by_key(|found| (found.mark.file, found.mark.line, found.mark.column));
    warnings.into_iter().map(|found| name(found, sources)).collect()
}

fn name(found: Found, sources: &[Source]) -> Fault {
    Fault { place: Some(place(found.mark, sources)), path: found.path, message: found.message, help: found.help }
}

fn place(mark: Mark, sources: &[Source]) -> Place {
    let source = usize::try_from(mark.file).ok().and_then(|i| sources.get(i));
    let file = source.map(|source| source.name.clone()).unwrap_or_default();
    Place { file, line: mark.line, column: mark.column }
}

/// The hash of all texts, each with its length, so that moving a line from one file to the next shows.
fn hash<'s>(sources: impl Iterator<Item = &'s Source>) -> String {
    let mut sha = Sha256::new();
    for source in sources {
        sha.update(source.text.len().to_le_bytes());
        sha.update(&source.text);
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
