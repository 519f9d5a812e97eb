//! Chassis against a real PostgreSQL and a real broker: what no mock can say.

mod durability;
mod test_database;
mod topic;
