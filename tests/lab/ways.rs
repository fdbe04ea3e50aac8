//! The ways to a host and through it: accounts, login shells, sudo, options of ssh, addresses; the old command line.

mod alone;
