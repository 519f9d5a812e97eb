//! Embeds the migrations anew whenever one of them changes.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/query/sqlite");
    println!("cargo:rerun-if-changed=../migrations/query/postgres");
}
