//! Scripts of what happens, and the commands that must follow.

mod ending;
mod flow;
mod link_loss;
mod random;
mod starting;
mod undoing;
