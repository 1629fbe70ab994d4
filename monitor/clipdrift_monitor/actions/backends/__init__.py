"""What starts retraining jobs: a process of this machine, or the team's own CI. One file each, one interface."""
