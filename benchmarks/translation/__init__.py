"""The paper's questions asked of translators: a module is a language that they translate into."""
