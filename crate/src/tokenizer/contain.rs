//! Panics of the tokenizers library as errors.
//!
//! A `tokenizer.json` can make the library panic: an index of its own vocabulary that is missing, a count of 0. In a
//! notebook a panic loses the variables of the cell. Unwinding stops here; the library's caches are locks that it only
//! tries to take, so that it stays usable.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic of the tokenizers library.
#[derive(Debug, thiserror::Error)]
#[error("the tokenizers library panicked: {message}{place}")]
pub(super) struct Panicked {
    message: String,
    place: String,
}

/// Calls `call`, and returns a panic in it as an error, without a message on standard error.
pub(super) fn contain<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    quiet_hook();
    let outer = CONTAINED.replace(true);
    // The values that a panic can leave half-changed are dropped, or are the caches that the module's doc names.
    let result = catch_unwind(AssertUnwindSafe(call));
    CONTAINED.set(outer);
    result.map_err(|payload| Panicked { message: message(&*payload), place: PLACE.take() })
}

/// Installs, once per process, a panic hook that passes every panic outside of [`contain`] to the hook before it.
fn quiet_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CONTAINED.get() {
                let place = info.location().map(|place| format!(" ({}:{})", file_name(place.file()), place.line()));
                PLACE.set(place.unwrap_or_default());
            } else {
                others(info);
            }
        }));
    });
}

/// The name of a source file, without the folders of the machine that it was compiled on.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The message of a panic, in one line.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    crate::error::shortened(text.unwrap_or("without a message")).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message_and_place() {
        let error = contain(|| -> u32 { panic!("no token {}", 7) }).unwrap_err().to_string();
        let start = "the tokenizers library panicked: no token 7 (contain.rs:";
        assert!(error.starts_with(start), "{error}");
        assert_eq!(contain(|| 5).unwrap(), 5);
        let nested = contain(|| contain(|| panic!("inner")).is_err() && CONTAINED.get());
        assert!(nested.unwrap() && !CONTAINED.get());
    }
}
