//! Pipelines in one readable line, for the dry run and the log.

use crate::host::command::typable;
use crate::proto::task::{Invocation, Pipeline, Run, Stage, Word};

/// Returns the stages of a pipeline in one line. Those in parentheses are the agent itself.
#[must_use]
pub(crate) fn summary(pipeline: &Pipeline) -> String {
    let stages: Vec<String> = pipeline.stages.iter().map(stage).collect();
    let into = pipeline.into.as_ref().map(|file| format!(" >{}", typable(file.as_bytes())));
    stages.join(" | ") + into.as_deref().unwrap_or_default()
}

fn stage(stage: &Stage) -> String {
    match &stage.run {
        Run::Program(program) => words(program),
        Run::Meter { meter, digest: Some(digest), .. } => format!("(count: {meter}, digest: {digest})"),
        Run::Meter { meter, digest: None, .. } => format!("(count: {meter})"),
        Run::Sink { program, .. } => format!("(copy to) {}", words(program)),
        Run::Read { name } => format!("(read {})", typable(name.as_bytes())),
    }
}

fn words(program: &Invocation) -> String {
    let word = |word: &Word| match word {
        Word::Literal(bytes) => typable(bytes.as_bytes()),
        Word::RunFile(name) => format!("RUN/{name}"),
        Word::Source => "SOURCE".to_owned(),
        Word::Staging => "STAGING".to_owned(),
        Word::Key => "fd:KEY".to_owned(),
    };
    let words = std::iter::once(typable(program.program.as_bytes())).chain(program.args.iter().map(word));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::files::DigestKind;
    use crate::proto::job::{Meter, Program};
    use crate::proto::task::Place;

    #[test]
    fn stages_are_shown_in_order() {
        let mut tar = Invocation::new("tar", ["--create", "a b"]);
        tar.args.push(Word::Key);
        let wire = Run::Meter { meter: Meter::Wire, digest: Some(DigestKind::Sha256), limited: false };
        let sink = Run::Sink { number: 1, program: Invocation::new("nc", ["db2"]), patience: 9 };
        let stages = vec![
            Stage { name: Program::Tar, run: Run::Program(tar) },
            Stage { name: Program::Other("wire".into()), run: wire },
            Stage { name: Program::Sink(1), run: sink },
        ];
        let into = Some("x".into());
        let pipeline = Pipeline { place: Place::Source, called: None, gate: None, rate: None, into, stages };
        assert_eq!(
            summary(&pipeline),
            "tar --create 'a b' fd:KEY | (count: wire, digest: sha256) | (copy to) nc db2 >x"
        );
    }
}
