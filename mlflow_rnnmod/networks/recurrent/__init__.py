"""Recurrent networks: embedding, recurrent layers, a readout, dense layers, an output layer."""
