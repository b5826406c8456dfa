//! Guests that mean harm, against the real host over HTTP: each gets an error with a name, the host stays up, and other jobs go on.
//!
//! * [`upload`]: components that are refused before there is a job;
//! * [`running`]: components that were taken and misbehave in a job, beside a neighbour whose output has to be right;
//! * [`compiling`]: components that are made to be hard to compile;
//! * [`neighbour`]: how much a job loses that runs beside them;
//! * [`spinning`]: a guest that does not come back holds up nobody but its own records.

mod compiling;
mod component;
mod neighbour;
mod running;
mod spinning;
mod upload;
