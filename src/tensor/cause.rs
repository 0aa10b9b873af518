//! The one line of a device's words that says what was wrong.

/// Of what Burn says of a failure, which goes over many lines with kernels and backtraces: the compiler's first error, or the cause
/// under all others.
pub fn cause(words: &str) -> String {
    let lines = || words.lines().map(str::trim).filter(|line| !line.is_empty());
    let of_compiler = lines().find(|line| line.contains("error:"));
    let under_all = lines().zip(lines().skip(1)).filter(|(line, _)| line.ends_with("Caused by:")).map(|(_, next)| next);
    let found = of_compiler.or(under_all.last()).or(lines().next());
    found.unwrap_or("no word of why").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_compilers_error_or_what_lies_under_all_others() {
        let memory = "An error happened during execution\nCaused by:\n  Several failures at once\nCaused by:\n  The bytes were never \
                      written (failure #3, still claiming 2 buffer(s))\nCaused by:\n  out of device memory allocating 1048576 bytes\n\
                      0: somewhere\nAsked at:\n1: elsewhere";
        assert_eq!(cause(memory), "out of device memory allocating 1048576 bytes");
        let kernel = "A compilation error happened during launch\nCaused by:\n  An error caused the compilation to fail\nCaused by:\n\
                      extern \"C\" __global__ void kernel() {\n}\ndefault_program(3): error: identifier \"bf17\" is undefined\n1 error";
        assert_eq!(cause(kernel), "default_program(3): error: identifier \"bf17\" is undefined");
        assert_eq!((cause("\n a word\n"), cause("")), ("a word".to_owned(), "no word of why".to_owned()));
    }
}
