CREATE DATABASE registry OWNER dealeriq;
