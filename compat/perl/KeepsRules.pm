package KeepsRules;

# The suite's own HTTP/2 breaks two rules that a server must enforce, and Gapura does; nginx lets both pass. Loaded before a
# file of the suite, this makes its clients and back ends keep them, so that the file can show everything else.

use warnings;
use strict;

use Test::Nginx::HTTP2;

no warnings 'redefine';

# RFC 7541, section 5.2: no more than seven bits of padding. The suite adds a whole byte to codes that end with one.

*Test::Nginx::HTTP2::huff = sub {
	my ($string) = @_;
	my $code = Test::Nginx::HTTP2::huff_code();
	my $bits = join '', map { $code->{$_} } split //, $string;
	return pack('B*', $bits . '1' x (-length($bits) % 8));
};

# RFC 9113, section 3.4: SETTINGS follow a client's preface. "Pure" clients send none unless the file does.

my $new = \&Test::Nginx::HTTP2::new;
my $raw_write = \&Test::Nginx::HTTP2::raw_write;

*Test::Nginx::HTTP2::new = sub {
	my ($class, $port, %extra) = @_;
	my $self = $new->(@_);
	$self->{owes_settings} = 1 if $self && $extra{pure} && !exists $extra{preface};
	return $self;
};

*Test::Nginx::HTTP2::raw_write = sub {
	my ($self, $message) = @_;
	if (delete $self->{owes_settings} && substr($message, 3, 1) ne "\x4") {
		$message = pack("x3Cx5", 0x4) . $message;
	}
	return $raw_write->($self, $message);
};

1;
