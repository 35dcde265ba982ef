"""The comparison of SFT, PPO, DPO and ORPO: one base, one set of data, one budget of tokens, several seeds."""
