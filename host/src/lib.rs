//! The Tidegate host: runs operators that people compiled to WebAssembly components, exactly once.
//!
//! `tidegate-core` decides, this crate does. Start reading at ARCHITECTURE.md.

pub mod api;
pub mod checkpoint_store;
pub mod cli;
pub mod config;
pub mod connector;
pub mod data_folder;
pub mod disk;
pub mod doctor;
pub mod durable_file;
pub mod fault;
pub mod http;
pub mod job;
pub mod job_manager;
pub mod job_store;
pub mod journal;
pub mod metrics;
pub mod module_store;
pub mod server;
pub mod state;
pub mod system;
pub mod task;
pub mod traces;
pub mod wasm;
