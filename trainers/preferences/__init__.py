"""Tuning a language model towards answers that are preferred: DPO, ORPO and PPO."""
