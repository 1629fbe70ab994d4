"""What should be in service: the first version, a promotion, a rollback. Pure; each step raises the generation by one."""
