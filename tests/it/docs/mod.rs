//! Tests the README and the book in `docs/`: what they name exists, and what they show works.

mod examples;
mod pages;
mod settings;

use std::path::{Path, PathBuf};

/// A page in the checkout.
struct Page {
    /// The path, relative to the checkout.
    path: PathBuf,
    text: String,
}

impl Page {
    /// A page of the checkout.
    fn read(path: &str) -> Page {
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        Page {
            path: path.into(),
            text,
        }
    }

    /// The text without fenced blocks.
    fn prose(&self) -> String {
        let mut inside = false;
        let lines = self.text.lines().filter(|line| {
            let is_fence = line.starts_with("```");
            inside ^= is_fence;
            !inside && !is_fence
        });
        lines.fold(String::new(), |text, line| text + line + "\n")
    }

    /// The texts in backticks, outside fenced blocks.
    fn code(&self) -> Vec<String> {
        let prose = self.prose();
        let spans = prose.split("\n\n").flat_map(|part| part.split('`').skip(1).step_by(2));
        spans.map(|span| span.replace('\n', " ")).collect()
    }

    /// The page's fenced blocks, in order.
    fn fences(&self) -> Vec<Fence> {
        let mut fences: Vec<Fence> = Vec::new();
        let mut inside = false;
        for (n, line) in self.text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if inside => inside = false,
                Some(info) => {
                    inside = true;
                    let (language, mark) = info.split_once(',').unwrap_or((info, ""));
                    fences.push(Fence {
                        place: format!("{}:{}", self.path.display(), n + 1),
                        language: language.to_string(),
                        mark: mark.to_string(),
                        text: String::new(),
                    });
                }
                None if inside => {
                    let fence = fences.last_mut().expect("a fence is open");
                    fence.text += line;
                    fence.text += "\n";
                }
                None => {}
            }
        }
        assert!(!inside, "{}: a fence is not closed", self.path.display());
        fences
    }
}

/// A fenced block of a page: ```` ```toml,fragment=why ````.
struct Fence {
    /// Page and line, for messages.
    place: String,
    language: String,
    /// The text after the language and a comma.
    mark: String,
    text: String,
}

impl Fence {
    /// The reason why the block is not tried, if it gives one.
    fn reason(&self) -> Option<&str> {
        self.mark.strip_prefix("fragment=").map(str::trim)
    }

    /// Whether the block is tried as it is.
    fn is_tried(&self, languages: &[&str]) -> bool {
        self.mark.is_empty() && languages.contains(&self.language.as_str())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The chapters of the book, by path.
fn chapters() -> Vec<Page> {
    let mut paths = Vec::new();
    files(&root().join("docs/src"), "md", &mut paths);
    paths.sort();
    let paths = paths
        .iter()
        .map(|path| path.strip_prefix(root()).expect("below the checkout"));
    paths.map(|path| Page::read(&path.display().to_string())).collect()
}

/// The README and the chapters.
fn pages() -> Vec<Page> {
    let mut pages = vec![Page::read("README.md")];
    pages.extend(chapters());
    pages
}

/// All files below a folder with this extension.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the checkout") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|found| found == ending) {
            found.push(path);
        }
    }
}
