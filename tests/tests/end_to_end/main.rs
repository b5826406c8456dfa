//! Jobs on the real binary, over HTTP, from input to committed output. What comes out is compared with an oracle that the test works
//! out in another way than the operators do.

mod api;
mod command_line;
mod dead_letters;
mod events;
mod flights;
mod lifecycle;
mod operations;
mod rescale;
mod why;
mod words;
