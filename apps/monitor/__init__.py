"""System 6: anomalies in time series, from training to a monitor that people leave open."""
