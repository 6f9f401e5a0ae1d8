// Package archtest holds the house rules as tests: who may import whom, where
// each foreign vocabulary lives, that every package says what it is, that the
// code is formatted and the generated code current, and what the project's
// texts do not contain. It has no code of its own.
package archtest
