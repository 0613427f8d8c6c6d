//! The committed corpus, replayed: what the fuzzer found worth keeping stays right.

use std::path::Path;

#[test]
fn every_input_of_the_corpus_is_right() {
    for (target, run) in windlass_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).expect("every target has a corpus") {
            let path = entry.expect("the corpus is there").path();
            // If it fails, this is which one.
            println!("{}", path.display());
            run(&std::fs::read(&path).expect("the corpus is there"));
            count += 1;
        }
        assert!(count >= 10, "{target} has a corpus of {count} inputs");
        println!("{target}: {count} inputs");
    }
}
