//! Tests of `support::holder`, with a small program that is taken for the agent: this very file, under the name
//! of the agent.

pub(crate) mod agent;
mod calls;
mod hosts;
mod processes;
mod scene;

use libtest_mimic::Trial;

/// Lists functions as tests of their names.
macro_rules! trials {
    ($($module:ident::$test:ident),* $(,)?) => {
        vec![$(Trial::test(concat!("holder/", stringify!($module), "::", stringify!($test)), || {
            $module::$test();
            Ok(())
        })),*]
    };
}

/// Returns all tests. Those of `hosts` need a lab.
pub(crate) fn trials() -> Vec<Trial> {
    trials![
        calls::calls_are_held_before_their_effect,
        calls::calls_are_held_after_their_effect,
        calls::calls_that_fail_are_not_held_afterwards,
        calls::records_of_other_kinds_are_not_held,
        calls::written_bytes_are_seen,
        calls::calls_have_other_results,
        calls::results_are_altered,
        calls::programs_are_held_at_their_start,
        processes::only_one_call_is_held,
        processes::only_agents_of_the_role_are_held,
        processes::jobs_are_followed,
        processes::other_threads_continue,
        processes::killed_process_ends,
        processes::signals_arrive_afterwards,
        processes::stopped_process_stays_stopped,
        processes::frozen_process_can_be_killed_and_let_go,
        processes::dropped_holder_traces_nothing,
        processes::panic_traces_nothing,
        processes::forks_of_others_cost_little,
        hosts::agents_are_followed_from_sshd,
        hosts::local_agents_are_followed_from_their_controller,
        hosts::exclusive_crash_ends_the_held_agent,
    ]
}
