#!/usr/bin/env bash
# Runs sshd in a worker of an MPIJob, as a child: sshd overwrites the environment that it was started with, and
# session.sh reads it from the first process of the container, which is this one.
/usr/sbin/sshd -De &
trap 'kill $!' TERM
wait $!
