//! The host as the SDK sees it. In a guest these are the imports of the contract; natively they are the test kit's host, which
//! keeps everything in memory. Both have the same functions, so everything above is one code and without indirection.

#[cfg(target_arch = "wasm32")]
pub mod wasm;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::imports::*;

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::*;
